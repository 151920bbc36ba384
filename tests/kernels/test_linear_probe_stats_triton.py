"""``linear_probe_stats`` on Triton against the float64 oracle: blocks of logits, and tiles reduced in registers."""

import dataclasses

import pytest
import torch

from ssdfast.kernels import LmHead, ProbeSpec, SamplingParams, linear_probe_stats
from ssdfast.kernels.linear_probe_stats import triton as backend
from ssdfast.kernels.linear_probe_stats import triton_blocks, triton_lists
from ssdfast.kernels.linear_probe_stats.triton_merge import merge_tiles
from ssdfast.kernels.linear_probe_stats.triton_tiling import Tiling
from ssdfast.kernels.probe_stats.state import AHEAD, MAX, SUM, WEIGHTED, Layout, merge_slots

from .cases import CASES, assert_matches_oracle, language_like, make, on_cpu, tokens
from .gpu import DEVICE, INTERPRETED, pytestmark, quick_interpreter  # noqa: F401
from .linear_cases import assert_near_products, by_rows, exact_factors, float64_logits

# The interpreter computes with the raw bits of bf16.
DTYPE = torch.float16 if INTERPRETED else torch.bfloat16
# It takes a minute for rows of three chunks, each with a head of its own: one case of them is enough.
SLOW = [case for case in CASES if case.large or case.make.__module__.endswith("empty_blocks")]
ALL = [case for case in CASES if not (case in SLOW and INTERPRETED)]
PAIRS = ("plain", "wide support", "bad rows", "nothing to choose", "by class", "empty blocks far below zero")
BLOCKS = [(case, DTYPE) for case in (CASES if not INTERPRETED else [c for c in CASES if c.name in PAIRS])]
BLOCKS += [(case, torch.float32) for case in CASES if case.name in ("plain", "bad rows")]
ONE_SWEEP = ProbeSpec(sweeps=1)


def _linear(hidden_a, head_a, hidden_b, head_b, token, spec):
    on_device = [x if x is None else x.to(DEVICE) for x in (hidden_a, head_a, hidden_b, head_b, token)]
    return on_cpu(linear_probe_stats(*on_device, spec, backend="triton"))


@pytest.fixture
def by_logits(monkeypatch):
    """The rows of every call to ``from_logits``, None for all of them."""
    calls = []
    from_logits = triton_blocks.from_logits

    def recorded(models, token, spec, out, rows=None):
        calls.append(None if rows is None else rows.tolist())
        from_logits(models, token, spec, out, rows)

    monkeypatch.setattr(backend, "from_logits", recorded)
    return calls


@pytest.mark.parametrize(("case", "dtype"), BLOCKS, ids=lambda x: getattr(x, "name", str(x)))
def test_pairs_match_the_oracle(case, dtype):
    a, b, token = make(case, dtype)
    assert_matches_oracle(by_rows(_linear, a, b, token, case.spec), a, b, token, case.spec)


@pytest.mark.parametrize("case", [c for c in ALL if c.spec.eval_sampling.top_k and c.spec.train_sampling.top_k],
                         ids=lambda case: case.name)  # fmt: skip
def test_one_model_matches_the_oracle(case, monkeypatch):
    """Every hard row through the tiles, but for what they cannot hold, whatever the size of the vocabulary is."""
    a, _, token = make(case, DTYPE)
    spec = dataclasses.replace(case.spec, sweeps=1, token_class=None, n_classes=0)
    if a.shape[1] < spec.top_logprobs * 4:
        pytest.skip("the list is most of the vocabulary: it goes by logits, as a pair does")
    monkeypatch.setattr(backend, "_enough", lambda v, top: True)
    assert_matches_oracle(by_rows(_linear, a, None, token, spec), a, None, token, spec)


def _model(n, v, h, g):
    hidden, weight = torch.randn(n, h, generator=g), torch.randn(v, h, generator=g) * 3 / h**0.5
    return hidden.to(DEVICE, DTYPE), weight.to(DEVICE, DTYPE)


def _near(stats, hidden, head, token, spec):
    """Like ``assert_near_products``, for one model."""
    logits = float64_logits(hidden, head)
    exact_head = LmHead(head.weight_VH.double().cpu(), None, head.scale, head.softcap)
    want = linear_probe_stats(hidden.double().cpu(), exact_head,
                              None, None, token, spec, backend="reference").base  # fmt: skip
    assert logits.shape[0] == len(token)
    for name, oracle in vars(want).items():
        actual = getattr(stats.base, name)
        if oracle.is_floating_point():
            torch.testing.assert_close(actual.double(), oracle, rtol=1e-4, atol=5e-5, equal_nan=True, msg=name)
        else:
            assert torch.equal(actual, oracle), name


@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.5, None), (1.7, 6.0)])
def test_heads_that_finish_their_products_go_by_logits(scale, softcap, by_logits):
    g = torch.Generator().manual_seed(1)
    a, weight = _model(5, 2700, 192, g)  # three steps of the product, and entries beyond the vocabulary
    head, token = LmHead(weight, None, scale, softcap), torch.arange(5) * 7
    got = on_cpu(linear_probe_stats(a, head, None, None, token.to(DEVICE), ONE_SWEEP, backend="triton"))
    _near(got, a, head, token, ONE_SWEEP)
    assert by_logits == [[] if scale == 1 else None]


def test_tiles_without_temperatures_and_with_many(by_logits):
    g = torch.Generator().manual_seed(10)
    a, weight = _model(5, 2300, 80, g)  # a size that takes shallower steps
    token = torch.arange(5) * 400
    for temperatures in ((), (3.0, 0.9, 0.25)):
        spec = ProbeSpec(sweeps=1, lse_temperatures=temperatures)
        got = on_cpu(linear_probe_stats(a, weight, None, None, token.to(DEVICE), spec, backend="triton"))
        _near(got, a, LmHead(weight), token, spec)
    assert by_logits == [[], []]


@pytest.mark.parametrize("spec", [ProbeSpec(), ONE_SWEEP], ids=["two sweeps", "one sweep"])
def test_heads_of_every_kind_and_hidden_sizes_that_differ(spec):
    g = torch.Generator().manual_seed(1)
    a, weight_a = _model(9, 2700, 192, g)  # three steps of the product
    b, weight_b = _model(9, 2700, 80, g)  # a size that takes shallower steps
    bias = torch.randn(2700, generator=g)
    bias[500:700] = -torch.inf
    head_b = LmHead(weight_b, bias.to(DEVICE, DTYPE), scale=1.7, softcap=6.0)
    head_a = LmHead(weight_a, bias.to(DEVICE), scale=0.5)
    token = torch.arange(9) * 7
    got = on_cpu(linear_probe_stats(a, head_a, b, head_b, token.to(DEVICE), spec, backend="triton"))
    assert_near_products(got, [float64_logits(a, head_a), float64_logits(b, head_b)], token, spec)
    for model in (got.base, got.trained):
        assert not ((model.top_ids >= 500) & (model.top_ids < 700)).any()


def _bits(stats):
    return [column.nan_to_num(7) for group in vars(stats).values() if group for column in vars(group).values()]


def test_blocks_and_tiles_of_rows(monkeypatch):
    """The same bits whether rows go together or a tile at a time, and in a second run."""
    g = torch.Generator().manual_seed(2)
    a, head = _model(200, 2500, 64, g)
    token = torch.arange(200, device=DEVICE)

    def run():
        return _bits(linear_probe_stats(a, head, None, None, token, ONE_SWEEP, backend="triton"))

    whole = run()
    assert all(map(torch.equal, whole, run()))
    monkeypatch.setattr(backend, "STATE_BYTES", 1)
    assert [rows.stop for rows in backend._blocks(200, 1)] == [128, 200]
    assert all(map(torch.equal, whole, run()))


def test_blocks_of_logits_follow_the_setting(monkeypatch):
    g = torch.Generator().manual_seed(11)
    a, head = _model(7, 60_000, 16, g)
    token = torch.arange(7, device=DEVICE)
    spec = ProbeSpec(sweeps=1, lse_temperatures=(), token_class=torch.zeros(60_000, dtype=torch.uint8, device=DEVICE))
    shapes = []
    logits = triton_blocks.lm_head_logits
    monkeypatch.setattr(
        triton_blocks, "lm_head_logits", lambda h, w, out: (shapes.append(tuple(out.shape)), logits(h, w, out))[1]
    )
    whole = _bits(linear_probe_stats(a, head, None, None, token, spec, backend="triton"))
    monkeypatch.setenv("SSDFAST_GPU_WORKSPACE_MB", "1")
    apart = _bits(linear_probe_stats(a, head, None, None, token, spec, backend="triton"))
    assert shapes == [(7, 60_000), (4, 60_000), (3, 60_000)]  # 240 kB each
    for x, y in zip(whole, apart, strict=True):  # products of other shapes may sum in another order
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)


def test_a_block_is_whole_tiles_of_the_product_where_it_can_be(monkeypatch):
    monkeypatch.setenv("SSDFAST_GPU_WORKSPACE_MB", "1024")
    assert triton_blocks.block_rows(4096, 8 * 248_320) == 512
    assert triton_blocks.block_rows(300, 8 * 248_320) == 300
    assert triton_blocks.block_rows(1, 1 << 40) == 1
    assert triton_blocks.block_rows(1000, 8 * 151_936) == 500  # two blocks of the same size, not 768 and 232


def test_a_group_with_several_of_the_list(by_logits):
    """The twenty likeliest tokens next to each other, equal ones among them, and the trace's token too."""
    v = 4000
    a = language_like(3, v, torch.Generator().manual_seed(3)).clamp(max=5)
    a[0, 1000:1020] = torch.linspace(9, 12, 20)
    a[1, 1000:1040] = 9.0
    a[2, 1000:1020] = 11 + torch.arange(20) / 64
    a = a.to(DTYPE)
    token = torch.tensor([1003, 1037, 5])
    hidden, weight = exact_factors(a)
    got = _linear(hidden, weight, None, None, token, ONE_SWEEP)
    assert_matches_oracle(got, a, None, token, ONE_SWEEP)
    assert got.base.top_ids[1].tolist() == list(range(1000, 1020))
    assert by_logits == [[]]


def test_rows_with_too_many_tokens_near_the_list_go_by_their_logits(by_logits):
    v = 6000
    a = language_like(3, v, torch.Generator().manual_seed(3))
    a[1] = 4.0  # every token is as likely
    a = a.to(DTYPE)
    token = tokens(3, v)
    hidden, weight = exact_factors(a)
    assert_matches_oracle(_linear(hidden, weight, None, None, token, ONE_SWEEP), a, None, token, ONE_SWEEP)
    assert by_logits == [[1]]


def test_a_small_tail_is_a_sum_and_not_a_difference(by_logits):
    v = 4000
    a = torch.full((1, v), -12.0)
    a[0, torch.arange(20) * 200] = 8.0
    a = a.to(DTYPE)
    spec = dataclasses.replace(ONE_SWEEP, eval_sampling=SamplingParams(1.0, 20, 0.95))
    hidden, weight = exact_factors(a)
    tail = _linear(hidden, weight, None, None, torch.tensor([3]), spec).base.tail_mass
    z = a.double()[0]
    want = z[z < 0].exp().sum() / z.exp().sum()
    assert 1e-8 < want < 1e-6
    torch.testing.assert_close(tail.double(), want[None], rtol=1e-4, atol=0)
    assert by_logits == [[]]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 6e4])
def test_what_is_not_finite_goes_by_its_logits(value, by_logits):
    """NaN and infinities, and a product beyond what 2^x of its rounding holds."""
    g = torch.Generator().manual_seed(6)
    a, head = _model(4, 2300, 64, g)
    token = torch.arange(4, device=DEVICE)
    clean = on_cpu(linear_probe_stats(a, head, None, None, token, ONE_SWEEP, backend="triton"))
    broken = a.clone()
    broken[2, 5] = value
    got = on_cpu(linear_probe_stats(broken, head, None, None, token, ONE_SWEEP, backend="triton"))
    rest = [0, 1, 3]
    for name, column in vars(got.base).items():
        assert torch.equal(column[rest].nan_to_num(7), getattr(clean.base, name)[rest].nan_to_num(7)), name
        if value != 6e4:
            assert column[2].isnan().all() if column.is_floating_point() else (column[2] == -1).all(), name
    if value != 6e4:
        assert by_logits == [[], [2]]
    assert got.base.lse[rest].isfinite().all()


def test_a_row_of_nan_stays_alone_in_a_pair():
    g = torch.Generator().manual_seed(6)
    a, head = _model(4, 2300, 64, g)
    token = torch.arange(4, device=DEVICE)
    clean = on_cpu(linear_probe_stats(a, head, a, head, token, backend="triton"))
    broken = a.clone()
    broken[2, 5] = torch.nan
    got = on_cpu(linear_probe_stats(broken, head, a, head, token, backend="triton"))
    for group, columns in (("base", got.base), ("pair", got.pair)):
        for name, column in vars(columns).items():
            want = getattr(getattr(clean, group), name)
            rest = [0, 1, 3]
            assert torch.equal(column[rest].nan_to_num(7), want[rest].nan_to_num(7)), name
            assert column[2].isnan().all() if column.is_floating_point() else (column[2] == -1).all(), name


def test_one_model_alone_has_the_columns_of_a_pair():
    g = torch.Generator().manual_seed(5)
    a, head = _model(5, 2300, 64, g)
    b, _ = _model(5, 2300, 64, g)
    token = torch.arange(5, device=DEVICE)
    both = on_cpu(linear_probe_stats(a, head, b, head, token, ONE_SWEEP, backend="triton"))
    alone = on_cpu(linear_probe_stats(a, head, None, None, token, ONE_SWEEP, backend="triton"))
    assert alone.pair is None
    for name, column in vars(alone.base).items():
        torch.testing.assert_close(column, getattr(both.base, name), rtol=1e-5, atol=2e-5, msg=name)


def test_products_of_the_same_operands_have_the_same_bits():
    g = torch.Generator().manual_seed(12)
    hidden, weight = _model(3, 40, 592, g)  # more than two steps
    weight[30] = weight[7]
    model = triton_blocks.Model(hidden, LmHead(weight))
    row, ids = torch.tensor([0, 2, 2, 1, 2], device=DEVICE), torch.tensor([7, 7, 30, 39, 0], device=DEVICE)
    got = triton_lists.logits_at(model, row, ids)
    want = (hidden.double() @ weight.double().T)[row, ids]
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)
    assert got[1] == got[2]


def test_tiles_merge_as_parts_do():
    """The kernel that merges tiles and the definition for shards; a row with NaN or an infinity is marked."""
    layout = Layout((1.0, 0.5, 2.5), 0, 1, False)
    g = torch.Generator().manual_seed(7)
    parts = torch.rand(70, layout.slots, 40, generator=g)
    parts[:, MAX] = torch.randn(70, 40, generator=g) * 20
    parts[7, SUM, 3] = torch.nan
    parts[8, WEIGHTED, 5] = torch.nan
    parts[9, MAX, 6] = torch.inf
    want = merge_slots(parts, layout)
    got = torch.zeros(layout.slots, 40, dtype=torch.float64, device=DEVICE)
    merge_tiles[(3,)](parts.to(DEVICE), got, 40, 70, layout.slots, RATES=layout.rates, num_warps=2)
    got = got.cpu()
    assert got[MAX].isnan().nonzero()[:, 0].tolist() == [3, 5, 6]
    whole = [i for i in range(40) if i not in (3, 5, 6)]
    for slot in (MAX, WEIGHTED, AHEAD, *range(SUM, layout.slots)):
        torch.testing.assert_close(got[slot, whole], want[slot, whole], rtol=2e-6, atol=0, msg=str(slot))


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_parts_are_whole_groups_of_their_tiles(target):
    from ssdfast.kernels.linear_probe_stats.triton_tiling import TILINGS

    tiling: Tiling = TILINGS[target]
    assert tiling.ids // tiling.part in (1, 2, 4)
    assert tiling.part % 32 == 0
