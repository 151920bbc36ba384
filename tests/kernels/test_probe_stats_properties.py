"""What must hold for any logits, and how the operator behaves inside torch."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from ssdfast.kernels import ProbeSpec, ProbeStats, SamplingParams, probe_stats

from .cases import assert_matches_oracle, language_like

pytest.importorskip("ssdfast.kernels._C")


@st.composite
def problems(draw):
    """Logits of every size, spread, offset and kind of damage, with a decoding setting to go with them."""
    n, v = draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 15, 16, 17, 63, 255, 256, 257, 1000, 2049, 4500]))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    a = language_like(n, v, g, draw(st.sampled_from([0.0, 0.1, 1.0, 5.0, 40.0])))
    b = a + draw(st.sampled_from([0.0, 1e-3, 0.5, 8.0])) * torch.randn(n, v, generator=g)
    shift = draw(st.sampled_from([0.0, -300.0, 5000.0]))
    step = draw(st.sampled_from([0.0, 0.5]))  # ties
    if step:
        a, b = (a / step).round() * step, (b / step).round() * step
    for z in (a, b):
        fraction = draw(st.sampled_from([0.0, 0.0, 0.3, 1.0]))
        z[torch.rand(n, v, generator=g) < fraction] = -torch.inf
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
    top = draw(st.sampled_from([1, 5, 20, 64]))
    sweeps = draw(st.sampled_from([1, 2]))
    decoding = st.builds(
        SamplingParams,
        temperature=st.sampled_from([0.5, 1.0, 1.7]),
        top_k=st.integers(0 if sweeps == 2 else 1, top),
        top_p=st.sampled_from([0.3, 0.95, 1.0]),
    )
    temperatures = draw(st.sampled_from([(), (2.0,), (0.3, 0.6, 1.0)]))
    spec = ProbeSpec(top, draw(decoding), draw(decoding), temperatures, sweeps=sweeps)
    token = torch.randint(0, v, (n,), generator=g)
    return (a + shift).to(dtype), (b - shift).to(dtype), token, spec


@settings(max_examples=150, deadline=None)
@given(problems())
def test_cpu_is_near_the_oracle(problem):
    a, b, token, spec = problem
    assert_matches_oracle(probe_stats(a, b, token, spec, backend="cpu"), a, b, token, spec)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_bounds(problem):
    a, b, token, spec = problem
    s = probe_stats(a, b, token, spec, backend="cpu")
    for model in (s.base, s.trained):
        good = ~model.lse.isnan()
        assert (model.entropy[good] >= -1e-6).all()
        assert (model.tail_mass[good] >= 0).all()
        assert torch.allclose((model.top_mass + model.tail_mass)[good], torch.ones(int(good.sum())), atol=1e-5)
        assert (model.support_size[good] >= 1).all()
        assert (model.top_logprobs[good].diff(dim=1).nan_to_num(0) <= 0).all()
    good = ~s.pair.kl_base_trained.isnan()
    assert (s.pair.kl_base_trained[good] >= 0).all()
    assert (s.pair.kl_trained_base[good] >= 0).all()
    alignment = s.pair.ssd_alignment
    assert (alignment.isnan() | (alignment.abs() <= 1)).all()
    if spec.sweeps == 2:
        assert ((s.pair.js[good] >= -1e-7) & (s.pair.js[good] <= 0.693148)).all()
        assert ((s.pair.tv[good] >= 0) & (s.pair.tv[good] <= 1 + 1e-5)).all()


def test_swapping_the_models_swaps_the_columns():
    g = torch.Generator().manual_seed(8)
    a = language_like(6, 3000, g)
    b = a + torch.randn(6, 3000, generator=g)
    token = torch.arange(6)
    forward, backward = probe_stats(a, b, token, backend="cpu"), probe_stats(b, a, token, backend="cpu")
    assert torch.allclose(forward.pair.kl_base_trained, backward.pair.kl_trained_base, rtol=1e-5)
    assert torch.allclose(forward.pair.js, backward.pair.js, rtol=1e-5)
    assert torch.equal(forward.pair.trained_logprobs_at_base_top, backward.pair.base_logprobs_at_trained_top)
    assert torch.equal(forward.pair.support_overlap, backward.pair.support_overlap)


def _bits(stats: ProbeStats) -> list[torch.Tensor]:
    return [
        column.nan_to_num(7) for group in (stats.base, stats.trained, stats.pair) for column in vars(group).values()
    ]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_same_bits_whatever_the_threads(threads):
    g = torch.Generator().manual_seed(9)
    a, b = language_like(7, 5000, g).bfloat16(), language_like(7, 5000, g).bfloat16()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        many = _bits(probe_stats(a, b, torch.arange(7), backend="cpu"))
    finally:
        torch.set_num_threads(before)
    one_by_one = [_bits(probe_stats(a[i : i + 1], b[i : i + 1], torch.tensor([i]), backend="cpu")) for i in range(7)]
    for column, rows in zip(many, zip(*one_by_one, strict=True), strict=True):
        assert torch.equal(column, torch.cat(rows))


def test_it_is_an_operator_that_traces():
    g = torch.Generator().manual_seed(10)
    a, b, token = language_like(3, 400, g), language_like(3, 400, g), torch.arange(3)
    spec = ProbeSpec(token_class=torch.arange(400).remainder(5).to(torch.uint8))

    @torch.compile(fullgraph=True, backend="aot_eager")
    def mean_shift(a, b, token):
        stats = probe_stats(a * 2, b * 2, token, spec, backend="cpu")
        return stats.pair.kl_base_trained.mean(), stats.base.class_mass + 1

    kl, mass = mean_shift(a, b, token)
    want = probe_stats(a * 2, b * 2, token, spec, backend="cpu")
    assert torch.equal(kl, want.pair.kl_base_trained.mean())
    assert torch.equal(mass, want.base.class_mass + 1)
    class_table = spec.token_class
    torch.library.opcheck(
        torch.ops.ssdfast.probe_stats.default,
        (a, b, token, class_table, 5, 20, 2, [1.0, 0.95, 1.1, 0.95], [20, 20], [0.5], "cpu"),
        test_utils=("test_schema", "test_faketensor"),
    )
