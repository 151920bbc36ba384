"""The Triton kernels against the float64 oracle: on a GPU, or with TRITON_INTERPRET=1 in Triton's interpreter."""

import numpy as np
import pytest
import torch
import triton.language as tl

from ssdfast.kernels import ProbeSpec, SamplingParams, probe_stats
from ssdfast.kernels.probe_stats import triton as backend
from ssdfast.kernels.probe_stats import triton_sweeps
from ssdfast.kernels.probe_stats.state import JS, KL_AB, KL_BA
from ssdfast.kernels.probe_stats.triton_sweeps import few_exponentials

from .cases import CASES, DEFAULT, assert_matches_oracle, language_like, make, on_cpu, tokens
from .gpu import DEVICE, INTERPRETED, pytestmark, quick_interpreter  # noqa: F401

DTYPES = (torch.bfloat16, torch.float16, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [c for c in CASES if not (c.large and INTERPRETED)], ids=lambda c: c.name)
def test_matches_oracle(case, dtype):
    a, b, token = make(case, dtype)
    got = probe_stats(a.to(DEVICE), b.to(DEVICE), token.to(DEVICE), case.spec, backend="triton")
    assert_matches_oracle(on_cpu(got), a, b, token, case.spec)


@pytest.mark.parametrize("rates", [(), (0.4, 0.7, 1.0, 1.4, 2.0), tuple(0.3 + 0.1 * i for i in range(12))], ids=len)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("sweeps", [1, 2])
def test_sums_of_a_thread_as_they_are_compiled(monkeypatch, rates, dtype, sweeps):
    """The interpreter takes fewer and larger operations elsewhere."""
    monkeypatch.setattr(triton_sweeps, "INTERPRETED", tl.constexpr(False))
    g = torch.Generator().manual_seed(len(rates))
    a = language_like(2, 5001, g).to(dtype)
    a[1, :700] = -torch.inf  # a hard row
    b, spec = (
        (a.float() + torch.randn(2, 5001, generator=g)).to(dtype),
        ProbeSpec(sweeps=sweeps, lse_temperatures=rates),
    )
    token = torch.tensor([4096, 3])
    got = probe_stats(a.to(DEVICE), b.to(DEVICE), token.to(DEVICE), spec, backend="triton")
    assert_matches_oracle(on_cpu(got), a, b, token, spec)


def test_longest_list():
    spec = ProbeSpec(
        top_logprobs=128, eval_sampling=SamplingParams(0.8, 100, 0.999), train_sampling=SamplingParams(1.2, 128, 1.0)
    )
    a, b = (language_like(2, 5000, torch.Generator().manual_seed(i)) for i in (0, 1))
    got = probe_stats(a.to(DEVICE), b.to(DEVICE), tokens(2, 5000).to(DEVICE), spec, backend="triton")
    assert_matches_oracle(on_cpu(got), a, b, tokens(2, 5000), spec)


def test_one_model_alone_has_the_same_columns():
    case = next(c for c in CASES if c.name == "ties")
    a, b, token = (x.to(DEVICE) for x in make(case, torch.bfloat16))
    both, alone = (probe_stats(a, x, token, case.spec, backend="triton") for x in (b, None))
    assert alone.trained is None
    assert alone.pair is None
    for name, column in vars(alone.base).items():
        assert torch.equal(column, getattr(both.base, name)), name


@pytest.mark.parametrize("spec", [DEFAULT, ProbeSpec(sweeps=1, lse_temperatures=())], ids=["two sweeps", "one"])
def test_rows_begin_anywhere(spec):
    """The two models' rows, and the rows of one, lie differently within 16 bytes."""
    g = torch.Generator().manual_seed(15)
    memory = torch.full((2, 4 * 3003 + 16), torch.nan, dtype=torch.bfloat16, device=DEVICE)
    a = memory[0].as_strided((4, 3001), (3003, 1), 1)
    b = memory[1].as_strided((4, 3001), (3002, 1), memory.shape[1] + 6)
    a.copy_(language_like(4, 3001, g))
    b.copy_(a + torch.randn(4, 3001, generator=g).to(DEVICE))
    token = tokens(4, 3001)
    got = on_cpu(probe_stats(a, b, token.to(DEVICE), spec, backend="triton"))
    assert_matches_oracle(got, a.cpu().contiguous(), b.cpu().contiguous(), token, spec)


def _crowded(g):
    """A whole list, and more, in the tokens of one thread; tied at its end or not, and -inf elsewhere or not."""
    z = torch.randn(4, 9000, generator=g)
    groups = (torch.arange(9000) // 8) % 128
    z[0, groups == 5] += 20
    z[1, groups == 7] = 9.0
    z[2, groups != 9] = -torch.inf
    z[3] = (z[3] * 2).round()
    return z


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_a_list_from_few_groups(dtype):
    z = _crowded(torch.Generator().manual_seed(16)).to(dtype)
    for spec in (DEFAULT, ProbeSpec(top_logprobs=100)):
        got = on_cpu(probe_stats(z.to(DEVICE), None, tokens(4, 9000).to(DEVICE), spec, backend="triton"))
        assert_matches_oracle(got, z, None, tokens(4, 9000), spec)


def test_repeats_to_the_last_bit():
    case = next(c for c in CASES if c.name == "plain")
    a, b, token = (x[:2].to(DEVICE) for x in make(case, torch.float16))
    first, second = (probe_stats(a, b, token, case.spec, backend="triton") for _ in range(2))
    for group in ("base", "trained", "pair"):
        for name, column in vars(getattr(first, group)).items():
            assert torch.equal(column, getattr(getattr(second, group), name)), name


def test_variance_of_a_move_away_from_a_sure_token():
    """log p_b - log p_a is -40 on all but 1e-6 of the mass, so its variance is 1e-6 of its mean square."""
    a = 0.1 * torch.randn(3, 300, generator=torch.Generator().manual_seed(4))
    b = a.clone()
    a[:, 17] += 20
    b[:, 17] -= 20
    token = tokens(3, 300)
    want = probe_stats(a.double(), b.double(), token, backend="reference").pair
    got = on_cpu(probe_stats(a.to(DEVICE), b.to(DEVICE), token.to(DEVICE), backend="triton")).pair
    torch.testing.assert_close(got.logratio_var.double(), want.logratio_var, rtol=1e-5, atol=0)
    torch.testing.assert_close(got.ssd_cov.double(), want.ssd_cov, rtol=1e-5, atol=0)


SMALL_DIVERGENCES = {"kl_base_trained": KL_AB, "kl_trained_base": KL_BA, "js": JS}


def _nearly_alike(dtype):
    """Logits of which some, unlikely ones, differ by a few ULP: KL is 1e-8 to 1e-6."""
    g = torch.Generator().manual_seed(12)
    a = language_like(6, 6000, g).to(dtype)
    if dtype == torch.float32:
        return a, a + 4.5e-4 * torch.randn(6, 6000, generator=g)
    raised = (torch.rand(6, 6000, generator=g) < 0.02) & (a.float().softmax(1) < 3e-5)
    return a, torch.where(raised, a * 1.01, a)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_a_kl_of_1e_7_is_right_to_1_percent(dtype):
    """The direct form of the second sweep alone would not be: it takes such rows too if it is given another pivot."""
    a, b = _nearly_alike(dtype)
    token = tokens(6, 6000).to(DEVICE)
    oracle = probe_stats(a.double(), b.double(), token.cpu(), backend="reference")
    a, b = a.to(DEVICE), b.to(DEVICE)
    got = on_cpu(probe_stats(a, b, token, backend="triton"))
    max_MN = torch.stack([a.float().amax(1), b.float().amax(1)])
    log_sum_MN = torch.stack([a.double().logsumexp(1), b.double().logsumexp(1)]) - max_MN
    ratio_N = log_sum_MN[1] - log_sum_MN[0]
    direct = backend.divergences(a, b, max_MN, log_sum_MN, ratio_N + 0.01).cpu()
    for name, slot in SMALL_DIVERGENCES.items():
        want = getattr(oracle.pair, name)
        assert ((want > 1e-9) & (want < 1e-6)).all(), f"{name}: {want.tolist()}"
        torch.testing.assert_close(getattr(got.pair, name).double(), want, rtol=0.01, atol=0, msg=name)
        assert ((direct[slot] - want).abs() / want).median() > 0.05, name


def test_models_that_differ_take_the_direct_form(monkeypatch):
    """Unless the list shows that they do, a row takes the exact form: its pivot is the ratio of the normalisers."""
    pivots = []
    sweep = backend.sweep_twice
    monkeypatch.setattr(backend, "sweep_twice", lambda *args: (pivots.append(args[-1].cpu()), sweep(*args))[1])
    a = language_like(3, 900, torch.Generator().manual_seed(13))
    b = a + torch.tensor([1e-3, 0.02, 1.0])[:, None] * torch.randn(3, 900, generator=torch.Generator().manual_seed(14))
    got = on_cpu(probe_stats(a.to(DEVICE), b.to(DEVICE), tokens(3, 900).to(DEVICE), DEFAULT, backend="triton"))
    ratio = (b.double().logsumexp(1) - b.amax(1)) - (a.double().logsumexp(1) - a.amax(1))
    assert ((pivots[0] - ratio).abs() < 4e-6).tolist() == [True, True, False]
    assert got.pair.kl_base_trained[2] > 0.01


def test_rows_lie_beyond_32_bit_offsets():
    """Three rows 2^30 logits apart: the last begins at 2^31. Memory is reserved, but only the rows are touched."""
    v, stride = 300, 1 << 30
    if DEVICE == "cpu":
        memory = torch.from_numpy(np.empty(2 * stride + v, dtype=np.int16)).view(torch.bfloat16)
    else:
        torch.utils.deterministic.fill_uninitialized_memory = False
        memory = torch.empty(2 * stride + v, dtype=torch.bfloat16, device=DEVICE)
    rows = memory.as_strided((3, v), (stride, 1))
    near = torch.empty(3, 304, dtype=torch.bfloat16, device=DEVICE)[:, :v]  # rows of the same alignment: the same bits
    near.copy_(language_like(3, v, torch.Generator().manual_seed(3)))
    rows.copy_(near)
    token = tokens(3, v).to(DEVICE)
    far, want = (probe_stats(x, x, token, backend="triton") for x in (rows, near))
    for name, column in vars(want.base).items():
        assert torch.equal(getattr(far.base, name), column), name


def test_few_exponentials():
    roots, root_of, powers = few_exponentials((1.0, 1 / 0.4, 1 / 0.7, 1 / 1.4, 1 / 2.0))
    assert roots == (1 / 2.0, 1 / 1.4)
    assert root_of == (0, 0, 1, 1, 0)
    assert powers == (2, 5, 2, 1, 1)
