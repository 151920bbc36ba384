"""The tiles of ``linear_probe_stats`` against the float64 oracle."""

import pytest
import torch

from ssdfast.kernels import LmHead, ProbeSpec, linear_probe_stats
from ssdfast.kernels.linear_probe_stats import triton as backend
from ssdfast.kernels.linear_probe_stats import triton_rows
from ssdfast.kernels.linear_probe_stats.triton_merge import merge_tiles
from ssdfast.kernels.probe_stats.state import MAX, Layout, merge_slots

from .cases import CASES, assert_matches_oracle, language_like, make, on_cpu, tokens
from .gpu import DEVICE, INTERPRETED, pytestmark, quick_interpreter  # noqa: F401
from .linear_cases import assert_near_products, by_rows, exact_factors, float64_logits

# The interpreter computes with the raw bits of bf16. fp32 operands go by way of the logits: a few cases are enough.
DTYPE = torch.float16 if INTERPRETED else torch.bfloat16
# It takes a minute for rows of three chunks, each with a head of its own: one case of them is enough.
SLOW = [case for case in CASES if case.large or case.make.__module__.endswith("empty_blocks")]
RUNS = [(case, DTYPE) for case in CASES if not (case in SLOW and INTERPRETED)]
RUNS += [(case, DTYPE) for case in SLOW if INTERPRETED and case.name == "empty blocks far below zero"]
RUNS += [(case, torch.float32) for case in CASES if case.name in ("plain", "bad rows")]


def _linear(hidden_a, head_a, hidden_b, head_b, token, spec):
    on_device = [x if x is None else x.to(DEVICE) for x in (hidden_a, head_a, hidden_b, head_b, token)]
    return on_cpu(linear_probe_stats(*on_device, spec, backend="triton"))


@pytest.mark.parametrize(("case", "dtype"), RUNS, ids=lambda x: getattr(x, "name", str(x)))
def test_matches_the_oracle(case, dtype):
    a, b, token = make(case, dtype)
    assert_matches_oracle(by_rows(_linear, a, b, token, case.spec), a, b, token, case.spec)


def _model(n, v, h, g):
    hidden, weight = torch.randn(n, h, generator=g), torch.randn(v, h, generator=g) * 3 / h**0.5
    return hidden.to(DEVICE, DTYPE), weight.to(DEVICE, DTYPE)


def test_heads_of_every_kind_and_hidden_sizes_that_differ():
    g = torch.Generator().manual_seed(1)
    a, weight_a = _model(9, 2700, 192, g)  # three steps of the product
    b, weight_b = _model(9, 2700, 80, g)  # a size that takes shallower steps
    bias = torch.randn(2700, generator=g)
    bias[500:700] = -torch.inf
    head_b = LmHead(weight_b, bias.to(DEVICE, DTYPE), scale=1.7, softcap=6.0)
    head_a = LmHead(weight_a, bias.to(DEVICE), scale=0.5)
    token = torch.arange(9) * 7
    got = on_cpu(linear_probe_stats(a, head_a, b, head_b, token.to(DEVICE), backend="triton"))
    assert_near_products(got, [float64_logits(a, head_a), float64_logits(b, head_b)], token, ProbeSpec())
    for model in (got.base, got.trained):
        assert not ((model.top_ids >= 500) & (model.top_ids < 700)).any()


def test_blocks_and_tiles_of_rows(monkeypatch):
    """The same bits whether rows go together or a tile at a time, and in a second run."""
    g = torch.Generator().manual_seed(2)
    a, head = _model(200, 2500, 64, g)
    b, _ = _model(200, 2500, 64, g)
    token = torch.arange(200, device=DEVICE)
    spec = ProbeSpec(sweeps=1)

    def bits():
        stats = linear_probe_stats(a, head, (a + b / 8).to(DTYPE), head, token, spec, backend="triton")
        return [column.nan_to_num(7) for group in vars(stats).values() for column in vars(group).values()]

    whole = bits()
    assert all(map(torch.equal, whole, bits()))
    monkeypatch.setattr(backend, "STATE_BYTES", 1)
    monkeypatch.setattr(backend, "SAMPLE_BYTES", 1)
    assert [rows.stop for rows in backend._blocks(200, 1, 1)] == [128, 200]
    assert all(map(torch.equal, whole, bits()))


def test_rows_with_too_many_candidates_go_by_their_logits(monkeypatch):
    """The sample misses the likely tokens of one row, so that thousands reach its bar."""
    v = 4000
    a = language_like(3, v, torch.Generator().manual_seed(3))
    a[1, torch.arange(v) % backend.SAMPLED == 0] -= 30
    a = a.to(DTYPE)
    crowded = []
    from_logits = triton_rows.from_logits
    monkeypatch.setattr(
        backend,
        "from_logits",
        lambda m, t, s, rows, out: (crowded.extend(rows.tolist()), from_logits(m, t, s, rows, out)),
    )
    token, spec = tokens(3, v), ProbeSpec()
    factors = exact_factors(a)
    assert_matches_oracle(_linear(*factors, *factors, token, spec), a, a, token, spec)
    assert crowded == [1]


def test_a_bar_that_too_few_reach_costs_time_and_no_token(monkeypatch):
    bars = backend.bars
    monkeypatch.setattr(backend, "bars", lambda *args: bars(*args) + 20)
    a = language_like(2, 3000, torch.Generator().manual_seed(8)).to(DTYPE)
    token, spec = tokens(2, 3000), ProbeSpec()
    factors = exact_factors(a)
    assert_matches_oracle(_linear(*factors, *factors, token, spec), a, a, token, spec)


@pytest.mark.parametrize("top", [1, 20, 128])
def test_enough_tokens_reach_the_bar(top):
    g = torch.Generator().manual_seed(4)
    hidden, weight = _model(8, 20_000, 64, g)
    model = triton_rows.Model(hidden, LmHead(weight))
    capacity = max(1024, 2 * top * backend.SAMPLED)
    bar_N = backend.bars(model, top, capacity)
    reach_N = (model.logits() >= bar_N[:, None]).sum(1)
    assert (reach_N >= top).all()
    assert (reach_N <= capacity).all()


def test_one_model_alone_has_the_same_columns():
    g = torch.Generator().manual_seed(5)
    a, head = _model(5, 2300, 64, g)
    b, _ = _model(5, 2300, 64, g)
    token = torch.arange(5, device=DEVICE)
    both = linear_probe_stats(a, head, b, head, token, backend="triton")
    alone = linear_probe_stats(a, head, None, None, token, backend="triton")
    assert alone.pair is None
    assert all(torch.equal(column, getattr(both.base, name)) for name, column in vars(alone.base).items())


def test_nan_stays_in_its_row():
    g = torch.Generator().manual_seed(6)
    a, head = _model(4, 2300, 64, g)
    token = torch.arange(4, device=DEVICE)
    clean = on_cpu(linear_probe_stats(a, head, a, head, token, backend="triton"))
    broken = a.clone()
    broken[2, 5] = torch.nan
    got = on_cpu(linear_probe_stats(broken, head, a, head, token, backend="triton"))
    rest = [0, 1, 3]
    for group, columns in (("base", got.base), ("pair", got.pair)):
        for name, column in vars(columns).items():
            assert torch.equal(column[rest].nan_to_num(7), getattr(getattr(clean, group), name)[rest].nan_to_num(7)), (
                name
            )
            assert column[2].isnan().all() if column.is_floating_point() else (column[2] == -1).all(), name


@pytest.mark.parametrize("pair_sums", [True, False])
def test_tiles_merge_as_parts_do(pair_sums):
    """The kernel that merges tiles and the definition for shards: also with empty tiles, invalid rows and forbidden
    tokens."""
    layout = Layout((1.0, 0.5, 2.5), 3, 2, pair_sums)
    g = torch.Generator().manual_seed(7)
    parts = torch.rand(70, layout.slots, 40, generator=g)
    for model in (0, 1):
        first = model * layout.model_slots
        parts[:, first + MAX] = torch.randn(70, 40, generator=g) * 20
        parts[5, first : first + layout.model_slots, :20] = 0
        parts[5, first + MAX, :20] = -torch.inf
    parts[7, 5, 3] = torch.nan  # SUM of a: row 3 is invalid
    if pair_sums:
        parts[9, 2 * layout.model_slots, 11] = -torch.inf
    want = merge_slots(parts, layout)
    got = torch.empty(layout.slots, 40, dtype=torch.float64, device=DEVICE)
    merge_tiles[(3,)](
        parts.to(DEVICE), got, 40, 70, layout.slots, layout.model_slots, 3, RATES=layout.rates, MODELS=2,
        PAIR_SUMS=pair_sums, num_warps=2,
    )  # fmt: skip
    model_slots = slice(0, 2 * layout.model_slots)
    torch.testing.assert_close(got.cpu()[model_slots], want[model_slots], rtol=2e-6, atol=0, equal_nan=True)
    if pair_sums:
        defined = (torch.arange(40) != 3) & (torch.arange(40) != 11)  # A_DD means nothing where A_D is -inf
        torch.testing.assert_close(got.cpu()[-3:, defined], want[-3:, defined], rtol=1e-5, atol=1e-9)
        assert got[2 * layout.model_slots, 11] == -torch.inf
