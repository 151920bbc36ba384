"""The definition itself: it computes in float64 whatever the logits' dtype, and numbers worked out by hand."""

import math

import pytest
import torch

from ssdfast.kernels import ProbeSpec, SamplingParams, linear_probe_stats, probe_stats
from ssdfast.kernels.probe_stats.schema import CE_TERMS

from .cases import CASES, make


def _assert_rounded(got, want):
    """float32 columns of the float64 ones; integers are the same."""
    for group in ("base", "trained", "pair"):
        for name, column in vars(getattr(want, group)).items():
            rounded = column.float() if column.is_floating_point() else column
            actual = getattr(getattr(got, group), name)
            assert actual.dtype == rounded.dtype
            assert torch.equal(actual.nan_to_num(7), rounded.nan_to_num(7)), f"{group}.{name}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", [c for c in CASES if not c.large], ids=lambda c: c.name)
def test_is_computed_in_float64(case, dtype):
    a, b, token = make(case, dtype)
    want = probe_stats(a.double(), b.double(), token, case.spec, backend="reference")
    _assert_rounded(probe_stats(a, b, token, case.spec, backend="reference"), want)


def test_products_are_float64():
    g = torch.Generator().manual_seed(2)
    a, b, head = (torch.randn(n, 40, generator=g) for n in (5, 5, 700))
    token = torch.arange(5)
    want = linear_probe_stats(a.double(), head.double(), b.double(), head.double(), token, backend="reference")
    _assert_rounded(linear_probe_stats(a, head, b, head, token, backend="reference"), want)


def test_numbers_by_hand():
    p = torch.tensor([[0.5, 0.25, 0.125, 0.125]], dtype=torch.float64)
    q = torch.tensor([[0.25, 0.25, 0.25, 0.25]], dtype=torch.float64)
    spec = ProbeSpec(
        top_logprobs=4,
        eval_sampling=SamplingParams(1.0, 2, 0.7),
        train_sampling=SamplingParams(1.0, 2, 1.0),
        lse_temperatures=(0.5,),
    )
    s = probe_stats(p.log() + 3, q.log(), torch.tensor([3]), spec, backend="reference")
    ln2 = math.log(2)
    assert s.base.lse.item() == pytest.approx(3.0)
    assert s.base.entropy.item() == pytest.approx(1.75 * ln2)
    assert s.base.top_ids.tolist() == [[0, 1, 2, 3]]  # the tie of 2 and 3 goes to the smaller id
    assert (s.base.token_rank.item(), s.base.nucleus_size.item(), s.base.support_size.item()) == (3, 2, 2)
    assert s.base.support_entropy.item() == pytest.approx(math.log(3) - 2 / 3 * ln2)
    assert (s.base.top_mass.item(), s.base.tail_mass.item()) == pytest.approx((0.75, 0.25))
    assert s.base.lse_T.item() == pytest.approx(6 + math.log(0.25 + 0.0625 + 2 * 0.015625))
    assert s.pair.kl_base_trained.item() == pytest.approx(0.25 * ln2)
    assert s.pair.kl_trained_base.item() == pytest.approx(0.25 * ln2)
    assert s.pair.tv.item() == pytest.approx(0.25)
    # S = {0, 1} and q = (2/3, 1/3): chi2 = 4/9 / 0.5 + 1/9 / 0.25 - 1; push = E_q[delta] + KL, delta_0 = -ln 2.
    assert s.pair.ssd_var.item() == pytest.approx(1 / 3)
    assert s.pair.ssd_cov.item() == pytest.approx(-2 / 3 * ln2 + 0.25 * ln2)
    assert s.pair.logratio_var.item() == pytest.approx(0.75 * ln2**2 - (0.25 * ln2) ** 2)
    assert s.pair.base_kept_mass.item() == pytest.approx(0.75)
    assert s.pair.trained_kept_mass.item() == pytest.approx(0.5)


@pytest.mark.parametrize("t", [0.7, 1.0, 1.3])
def test_the_loss_decomposition_is_exact(t):
    """CE(q, p) = compression + reshaping + alignment + T H(q), for both models."""
    g = torch.Generator().manual_seed(1)
    a, b = (torch.randn(5, 400, generator=g, dtype=torch.float64) * 2 for _ in range(2))
    spec = ProbeSpec(train_sampling=SamplingParams(t, 20, 0.9))
    s = probe_stats(a, b, torch.zeros(5, dtype=torch.int64), spec, backend="reference")
    for row in range(5):
        order = a[row].sort(descending=True, stable=True).indices[:20]
        q = (a[row, order] / t).softmax(0)
        size = int((q.cumsum(0) < 0.9).sum()) + 1
        q = q[:size] / q[:size].sum()
        entropy = -(q * q.log()).sum()
        for model, z in (("base", a), ("trained", b)):
            cross_entropy = -(q * z[row].log_softmax(0)[order[:size]]).sum()
            terms = [getattr(s.pair, f"{model}_ce_{term}")[row] for term in CE_TERMS]
            total = sum(terms) + t * entropy
            assert total.item() == pytest.approx(cross_entropy.item(), rel=1e-12)
        assert s.pair.base_ce_alignment[row].item() == pytest.approx(0, abs=1e-12)
