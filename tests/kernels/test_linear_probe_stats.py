"""``linear_probe_stats`` on the CPU: the table of hard cases, real products, heads of every kind, bad input."""

import dataclasses
import threading

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from ssdfast.kernels import LmHead, ProbeSpec, SamplingParams, linear_probe_stats, lm_head_logits, probe_stats
from ssdfast.kernels.linear_probe_stats import cpu as backend
from ssdfast.kernels.linear_probe_stats import logits

from .cases import CASES, assert_matches_oracle, language_like, make
from .linear_cases import assert_near_products, by_rows, exact_factors, float64_logits

pytest.importorskip("ssdfast.kernels._C")

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
BACKENDS = ["reference", "cpu"]


def _products(dtype):
    """Every product that this processor has for a dtype; "" is torch's."""
    if dtype == torch.float16:
        return [""]
    asked = ("amx", "avx512", "avx2")
    return sorted({torch.ops.ssdfast_cpu.multiplies_in(dtype == torch.bfloat16, isa) for isa in asked})


PRODUCTS = [(dtype, isa) for dtype in DTYPES for isa in _products(dtype)]


def _linear(*args):
    return linear_probe_stats(*args, backend="cpu")


@pytest.mark.parametrize(("dtype", "isa"), PRODUCTS, ids=lambda value: str(value) or "torch")
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_matches_the_oracle(case, dtype, isa, monkeypatch):
    if case.large and dtype == torch.float16:
        pytest.skip("large rows: fp16 takes the same way as fp32")
    monkeypatch.setenv("SSDFAST_CPU", isa)
    a, b, token = make(case, dtype)
    assert_matches_oracle(by_rows(_linear, a, b, token, case.spec), a, b, token, case.spec)


def test_without_a_product_of_csrc(monkeypatch):
    monkeypatch.setenv("SSDFAST_CPU", "portable")
    assert logits.multiplies_in(torch.bfloat16) == ""
    monkeypatch.setattr(logits, "SLICE_BYTES", 4 * 64 * 100)  # the head in more than one slice
    case = next(c for c in CASES if c.name == "plain")
    a, b, token = make(case, torch.bfloat16)
    assert_matches_oracle(by_rows(_linear, a, b, token, case.spec), a, b, token, case.spec)


def _model(n, v, h, dtype, g, shift=0.0, base=None):
    hidden = torch.randn(n, h, generator=g) if base is None else base.float() + shift * torch.randn(n, h, generator=g)
    return hidden.to(dtype), (torch.randn(v, h, generator=g) * 3 / h**0.5).to(dtype)


def _check(hidden_a, head_a, hidden_b, head_b, spec, name="cpu"):
    head_a, head_b = (head if isinstance(head, LmHead) else LmHead(head) for head in (head_a, head_b))
    token = torch.arange(hidden_a.shape[0]) * 7
    got = linear_probe_stats(hidden_a, head_a, hidden_b, head_b, token, spec, backend=name)
    assert_near_products(got, [float64_logits(hidden_a, head_a), float64_logits(hidden_b, head_b)], token, spec)
    return got


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hidden_size", [64, 577, 2050])  # one slice of the product, an odd size, several slices
def test_real_products(hidden_size, dtype, name):
    g = torch.Generator().manual_seed(1)
    a, head_a = _model(21, 3001, hidden_size, dtype, g)
    b, head_b = _model(21, 3001, hidden_size, dtype, g, 0.1, base=a)
    _check(a, head_a, b, head_a, ProbeSpec(), name)  # tied: one head for both
    _check(a, head_a, b, head_b, ProbeSpec(), name)


@pytest.mark.parametrize("name", BACKENDS)
def test_heads_of_every_kind(name):
    g = torch.Generator().manual_seed(2)
    a, weight_a = _model(9, 2001, 96, torch.bfloat16, g)
    b, weight_b = _model(9, 2001, 160, torch.bfloat16, g)
    bias = torch.randn(2001, generator=g)
    bias[500:700] = -torch.inf  # padding of the vocabulary that cannot occur
    head_a = LmHead(weight_a, bias, scale=0.5)
    got = _check(a, head_a, b, LmHead(weight_b, bias.bfloat16(), softcap=5.0), ProbeSpec(), name)
    assert not ((got.base.top_ids >= 500) & (got.base.top_ids < 700)).any()
    _check(
        a,
        head_a,
        b,
        LmHead(weight_b, scale=1.7, softcap=30.0),
        ProbeSpec(train_sampling=SamplingParams(1.3, 0, 0.9)),
        name,
    )


@pytest.mark.parametrize("name", BACKENDS)
def test_the_bias_may_forbid_whole_blocks(name):
    """The first 2,048 tokens, of a row whose logits are all below -709: e^-z of it is not a double."""
    g = torch.Generator().manual_seed(11)
    a, weight = _model(5, 5001, 64, torch.float32, g)
    b, _ = _model(5, 5001, 64, torch.float32, g, 0.1, base=a)
    bias = torch.full((5001,), -760.0)
    bias[:2048] = bias[3000:3600] = -torch.inf
    _check(a, LmHead(weight, bias), b, LmHead(weight, bias), ProbeSpec(), name)


def test_what_the_bias_forbids_stays_so_under_a_soft_cap():
    """tanh alone would make -5 of -inf."""
    bias = torch.zeros(9).index_fill(0, torch.tensor([3, 7]), -torch.inf)
    logits_NV = lm_head_logits(torch.ones(2, 4), LmHead(torch.ones(9, 4), bias, softcap=5.0))
    assert torch.equal(logits_NV == -torch.inf, (bias == -torch.inf).expand(2, 9))


def test_one_model_alone():
    g = torch.Generator().manual_seed(3)
    hidden, weight = _model(5, 999, 64, torch.bfloat16, g)
    token = torch.arange(5)
    alone = linear_probe_stats(hidden, weight, None, None, token)
    both = linear_probe_stats(hidden, weight, hidden, weight, token)
    assert alone.trained is None
    assert alone.pair is None
    assert all(torch.equal(column, getattr(both.base, name)) for name, column in vars(alone.base).items())


def _bits(stats):
    return [
        column.nan_to_num(7) for group in (stats.base, stats.trained, stats.pair) for column in vars(group).values()
    ]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_the_same_bits_in_every_run(dtype):
    g = torch.Generator().manual_seed(4)
    a, head = _model(70, 5003, 320, dtype, g)
    b, _ = _model(70, 5003, 320, dtype, g, 0.2, base=a)
    token = torch.arange(70)
    first = _bits(linear_probe_stats(a, head, b, head, token))
    again = _bits(linear_probe_stats(a, head, b, head, token))
    assert all(map(torch.equal, first, again))


def test_the_workspace_serves_inside_and_outside_of_inference_mode(monkeypatch):
    g = torch.Generator().manual_seed(6)
    a, head = _model(9, 300, 32, torch.float16, g)  # by torch's product, which minds the mode
    token = torch.arange(9)
    monkeypatch.setattr(backend, "_thread", threading.local())
    with torch.inference_mode():
        inside = _bits(linear_probe_stats(a, head, a, head, token))
    assert all(map(torch.equal, inside, _bits(linear_probe_stats(a, head, a, head, token))))


def test_blocks_of_rows_give_the_same(monkeypatch):
    g = torch.Generator().manual_seed(5)
    a, head = _model(50, 4001, 128, torch.bfloat16, g)
    b, _ = _model(50, 4001, 128, torch.bfloat16, g, 0.2, base=a)
    token = torch.arange(50)
    whole = _bits(linear_probe_stats(a, head, b, head, token))
    monkeypatch.setattr(backend, "WORKSPACE_BYTES", 2 * 4 * 4001 * 20)
    assert backend._block_rows(50, 4001, models=2) == 16
    if not logits.multiplies_in(torch.bfloat16):
        pytest.skip("torch's product may depend on the number of rows")
    assert all(map(torch.equal, whole, _bits(linear_probe_stats(a, head, b, head, token))))


@given(st.integers(1, 100_000), st.integers(1, 800_000), st.integers(1, 2))
def test_workspace_is_bounded(n, v, models):
    rows = backend._block_rows(n, v, models)
    assert rows >= min(n, 8)
    assert rows * v * models * 4 <= 64e6
    assert -(-n // rows) <= -(-n // 8)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 20),
    v=st.sampled_from([1, 5, 23, 24, 25, 47, 48, 49, 200]),
    h=st.integers(1, 80),
    seed=st.integers(0, 2**31),
)
def test_products_of_any_shape(n, v, h, seed):
    """Small integers: their products and sums are exact in any order, so the logits are too."""
    g = torch.Generator().manual_seed(seed)
    hidden, weight = (torch.randint(-4, 5, shape, generator=g).bfloat16() for shape in ((n, h), (v, h)))
    out = torch.full((n, v + 3), torch.nan)
    assert torch.equal(lm_head_logits(hidden, LmHead(weight), out[:, :v]), hidden.float() @ weight.float().T)
    assert out[:, v:].isnan().all()


def test_rows_of_any_stride():
    g = torch.Generator().manual_seed(6)
    hidden, weight = _model(6, 500, 40, torch.bfloat16, g)
    apart = torch.zeros(6, 55, dtype=torch.bfloat16)
    apart[:, 7:47] = hidden
    wide = torch.full((500, 50), torch.nan, dtype=torch.bfloat16)
    wide[:, 1:41] = weight
    token = torch.arange(6)
    got = linear_probe_stats(apart[:, 7:47], wide[:, 1:41], None, None, token)
    want = linear_probe_stats(hidden, weight, None, None, token)
    assert all(torch.equal(column, getattr(got.base, name)) for name, column in vars(want.base).items())


@pytest.mark.parametrize("name", BACKENDS)
def test_nan_stays_in_its_row(name):
    g = torch.Generator().manual_seed(7)
    a, head = _model(5, 700, 64, torch.bfloat16, g)
    b, _ = _model(5, 700, 64, torch.bfloat16, g, 0.2, base=a)
    token = torch.arange(5)
    clean = linear_probe_stats(a, head, b, head, token, backend=name)
    a[2, 9] = torch.nan
    got = linear_probe_stats(a, head, b, head, token, backend=name)
    rest = torch.tensor([0, 1, 3, 4])
    for group in ("base", "trained", "pair"):
        for column, want in vars(getattr(clean, group)).items():
            actual = getattr(getattr(got, group), column)
            assert torch.equal(actual[rest], want[rest]), f"{group}.{column}"
            if group == "trained":
                assert torch.equal(actual[2], want[2])
            elif actual.is_floating_point():
                assert actual[2].isnan().all(), f"{group}.{column}"
            else:
                assert (actual[2] == -1).all(), f"{group}.{column}"


def _good():
    g = torch.Generator().manual_seed(8)
    hidden, weight = _model(4, 300, 32, torch.bfloat16, g)
    return {"ha": hidden, "wa": weight, "hb": hidden, "wb": weight, "y": torch.arange(4)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ha": torch.zeros(4, 16, dtype=torch.bfloat16)}, "hidden_base_NH has hidden size 16, lm_head_base_VH 32"),
        (
            {"hb": torch.zeros(4, 16, dtype=torch.bfloat16)},
            "hidden_trained_NH has hidden size 16, lm_head_trained_VH 32",
        ),
        ({"ha": torch.zeros(4)}, r"hidden_base_NH must have shape \[N, H\], got \[4\]"),
        ({"wb": torch.zeros(32)}, r"lm_head_trained_VH must have shape \[V, H\]"),
        ({"hb": torch.zeros(5, 32, dtype=torch.bfloat16)}, "hidden_base_NH has 4 rows and hidden_trained_NH 5"),
        ({"wb": torch.zeros(299, 32, dtype=torch.bfloat16)}, "lm_head_base_VH has 300 rows, lm_head_trained_VH 299"),
        ({"wa": torch.zeros(300, 32)}, "hidden_base_NH is torch.bfloat16, lm_head_base_VH torch.float32"),
        ({"ha": torch.zeros(4, 32, dtype=torch.int64)}, "must be bf16, fp16, fp32 or fp64"),
        (
            {"hb": torch.zeros(4, 32), "wb": torch.zeros(300, 32)},
            "hidden_base_NH and hidden_trained_NH differ in dtype",
        ),
        ({"wb": None}, "give both hidden_trained_NH and lm_head_trained_VH, or neither"),
        (
            {"wa": torch.zeros(300, 32, dtype=torch.bfloat16, device="meta")},
            "hidden_base_NH is on cpu, lm_head_base_VH on meta",
        ),
        ({"wa": torch.zeros(0, 32, dtype=torch.bfloat16)}, r"lm_head_base_VH is empty: \[0, 32\]"),
        ({"wa": torch.zeros(32, 300, dtype=torch.bfloat16).T}, "lm_head_base_VH has stride 300 along H"),
        ({"wa": LmHead(torch.zeros(300, 32, dtype=torch.bfloat16), torch.zeros(299))}, r"must be floating \[300\]"),
        ({"y": torch.tensor([0, 1, 2, 300])}, r"token_N\[3\] must be in \[0, 299\], got 300"),
        ({"y": torch.arange(3)}, r"token_N must be integer \[4\]"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_says_what_is_wrong(change, message):
    args = _good() | change
    with pytest.raises(ValueError, match=message):
        linear_probe_stats(args["ha"], args["wa"], args["hb"], args["wb"], args["y"])


@pytest.mark.parametrize("name", ["scale", "softcap"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_a_head_that_makes_no_sense(name, value):
    with pytest.raises(ValueError, match=f"{name} must be finite and positive"):
        LmHead(torch.zeros(3, 3), **{name: value})


def test_float64_needs_the_reference():
    hidden, weight = torch.zeros(1, 4, dtype=torch.float64), torch.zeros(9, 4, dtype=torch.float64)
    assert linear_probe_stats(hidden, weight, None, None, torch.tensor([0])).base.lse.dtype == torch.float64
    with pytest.raises(ValueError, match="use backend='reference'"):
        linear_probe_stats(hidden, weight, None, None, torch.tensor([0]), backend="cpu")


def test_it_is_an_operator_that_traces():
    g = torch.Generator().manual_seed(9)
    a, weight = _model(3, 400, 32, torch.bfloat16, g)
    spec = ProbeSpec(token_class=torch.arange(400).remainder(5).to(torch.uint8))
    token = torch.arange(3)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def mean_shift(a, b, token):
        stats = linear_probe_stats(a * 2, LmHead(weight, softcap=30.0), b, weight, token, spec)
        return stats.pair.kl_base_trained.mean(), stats.base.class_mass + 1

    want = linear_probe_stats(a * 2, LmHead(weight, softcap=30.0), a, weight, token, spec)
    kl, mass = mean_shift(a, a, token)
    assert torch.equal(kl, want.pair.kl_base_trained.mean())
    assert torch.equal(mass, want.base.class_mass + 1)


def test_an_unfair_sample_does_not_mislead_the_long_nucleus():
    """The search for a long nucleus samples every second block: here they hold none of the mass, or all of it."""
    v = 40_000
    for odd in (0, 1):
        a = language_like(2, v, torch.Generator().manual_seed(odd), spread=1.0)
        a[:, torch.arange(v) // 256 % 2 == odd] -= 9
        token, spec = (
            torch.zeros(2, dtype=torch.int64),
            dataclasses.replace(ProbeSpec(), train_sampling=SamplingParams(1.3, 0, 0.9)),
        )
        assert_matches_oracle(probe_stats(a, a, token, spec, backend="cpu"), a, a, token, spec)


def test_factors_are_exact():
    logits = language_like(5, 77, torch.Generator().manual_seed(0)).bfloat16()
    hidden, weight = exact_factors(logits)
    assert torch.equal((hidden.float() @ weight.float().T).bfloat16(), logits)


@pytest.mark.parametrize(
    ("hidden", "weight", "out"),
    [
        (torch.zeros(5, 40), torch.zeros(300, 40).bfloat16(), None),
        (torch.zeros(40, 5).bfloat16().T, torch.zeros(300, 40).bfloat16(), None),
        (torch.zeros(5, 80).bfloat16(), torch.zeros(300, 40).bfloat16(), None),
        (torch.zeros(5, 40).bfloat16(), torch.zeros(300, 40).bfloat16(), torch.zeros(5, 300).bfloat16()),
        (torch.zeros(5, 40).bfloat16(), torch.zeros(300, 40).bfloat16(), torch.zeros(3, 300)),
        (torch.zeros(5, 40).bfloat16(), torch.zeros(300, 40).bfloat16(), torch.zeros(300, 5).T),
        (torch.zeros(5, 40).double(), torch.zeros(300, 40).double(), None),
    ],
    ids=["dtype", "stride", "H", "dtype of out", "rows of out", "stride of out", "float64"],
)
def test_logits_refuse_what_does_not_fit(hidden, weight, out):
    with pytest.raises(ValueError, match=r"hidden_NH|out_NV|float64"):
        lm_head_logits(hidden, LmHead(weight), out)


def test_logits_of_a_head_that_is_being_trained():
    weight = torch.nn.Parameter(torch.ones(9, 4))
    assert torch.equal(lm_head_logits(torch.ones(2, 4), LmHead(weight)), torch.full((2, 9), 4.0))


def test_the_definition_is_not_rounded_under_autocast():
    g = torch.Generator().manual_seed(10)
    hidden, weight = _model(3, 300, 40, torch.float32, g)
    plain = linear_probe_stats(hidden, weight, None, None, torch.arange(3), backend="reference")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = linear_probe_stats(hidden, weight, None, None, torch.arange(3), backend="reference")
    assert torch.equal(got.base.lse, plain.base.lse)
