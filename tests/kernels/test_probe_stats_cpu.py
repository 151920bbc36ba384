"""The C++ backend against the oracle: every dtype, every instruction set of this machine."""

import pytest
import torch

from ssdfast.kernels import ProbeSpec, SamplingParams, probe_stats

from .cases import CASES, INF, assert_matches_oracle, make

pytest.importorskip("ssdfast.kernels._C")

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def _can_run(isa: str) -> bool:
    flags = torch.backends.cpu.get_cpu_capability()
    return isa == "portable" or flags == "AVX512" or (isa == "avx2" and flags == "AVX2")


ISAS = [pytest.param(isa, marks=pytest.mark.skipif(not _can_run(isa), reason="not on this processor"))
        for isa in ("avx512", "avx2", "portable")]  # fmt: skip


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_matches_the_oracle(case, dtype, isa, monkeypatch):
    if case.large and isa != "avx512" and dtype != torch.bfloat16:
        pytest.skip("large rows: one dtype is enough off the main path")
    monkeypatch.setenv("SSDFAST_CPU", isa)
    a, b, token = make(case, dtype)
    assert_matches_oracle(probe_stats(a, b, token, case.spec, backend="cpu"), a, b, token, case.spec)


def _check(a, b, spec=None, dtype=torch.float32):
    spec = spec or ProbeSpec()
    a, b, token = a.to(dtype), b.to(dtype), torch.zeros(len(a), dtype=torch.int64)
    stats = probe_stats(a, b, token, spec, backend="cpu")
    assert_matches_oracle(stats, a, b, token, spec)
    return stats


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sign", [1, -1])
def test_both_zeros_at_the_extreme_of_a_row(dtype, sign):
    a = torch.full((2, 4096), -5.0 * sign)
    a[0, 0], a[0, 3000] = -0.0, 0.0  # in different chunks, the smaller bit pattern first
    a[1] = torch.linspace(-3, 2, 4096)  # the row after must not inherit a count
    _check(a, a, dtype=dtype)
    a[0, 0], a[0, 3000] = 0.0, -0.0
    _check(a, a, dtype=dtype)


def test_wide_support_far_from_the_trained_model():
    a, b = torch.zeros(1, 600), torch.zeros(1, 600)
    a[0, 500:], b[0, :500] = -40, -30
    _check(a, b, ProbeSpec(train_sampling=SamplingParams(0.3, 0, 0.95)))


def test_flat_row_whose_top_token_shifted():
    a = torch.zeros(2, 4096)
    a[:, 17] = 1e-3
    b = a.clone()
    b[0, 17], b[1, 17] = -30, 3
    _check(a, b)


def test_ssd_fraction_at_locks_that_shifted_far():
    """The pooled fraction divides rounding by a tiny variance: both means of the covariance need the same rounding."""
    g = torch.Generator().manual_seed(0)
    a = torch.randn(400, 2000, generator=g) * 0.3
    a[:, 9] = 27
    b = a.clone()
    b[:, 9] -= 20 * (1 + torch.rand(400, generator=g))
    pair = _check(a, b).pair
    fraction = (pair.ssd_cov.double() ** 2 / pair.ssd_var).sum() / pair.logratio_var.double().sum()
    assert fraction.item() == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize("train", [SamplingParams(1.1, 20, 0.95), SamplingParams(1.1, 0, 0.95)])
def test_trained_model_forbids_the_support(train):
    a = torch.linspace(5, -5, 500).repeat(3, 1)
    b = a.clone()
    b[0, :450], b[1, 3] = -INF, -INF
    stats = _check(a, b, ProbeSpec(train_sampling=train))
    assert stats.pair.trained_ce_alignment[:2].tolist() == [INF, INF]
