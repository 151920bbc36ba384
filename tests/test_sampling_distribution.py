"""One definition of the sampling distribution: its callers compute the same bits as the formulas that it replaced."""

import math

import numpy as np
import pytest
import torch

from ssdfast.config import SamplingParams
from ssdfast.report.candidates import truncate
from ssdfast.sampling_distribution import in_top_k, in_top_p, mass_before, truncated_distribution

PARAMS = [(1.0, 20, 0.95), (1.6, 20, 0.8), (0.7, 5, 0.5), (1.1, 3, 1.0), (2.0, 40, 0.3), (0.4, 1, 0.9)]


def ranked_logprobs(seed, kind, rows=400, k=40):
    """Falling log-probabilities: random, with many ties, of equal tokens, or with impossible tokens at the end."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3.0, size=(rows, 2 * k)).astype(np.float32)
    if kind == "ties":
        logits = np.round(logits)
    if kind == "equal":
        logits[:] = 0.0
    if kind == "impossible":
        logits[:, rng.integers(1, k) :] = -np.inf
    logits = -np.sort(-logits, axis=1)
    peak = logits[:, :1].astype(np.float64)
    lse = np.log(np.exp(logits.astype(np.float64) - peak).sum(1, keepdims=True)) + peak
    return (logits - lse).astype(np.float32)[:, :k]


def distribution_before(logp_NK, temperature, top_k, top_p):
    logp_NK = logp_NK[:, :top_k] / temperature
    q_NK = np.exp(logp_NK - logp_NK[:, :1])
    q_NK /= q_NK.sum(1, keepdims=True)
    before_NK = np.cumsum(q_NK, 1) - q_NK
    q_NK[before_NK >= top_p] = 0
    return q_NK / q_NK.sum(1, keepdims=True)


def candidates_before(top_logprobs_NK, temperature, top_k, top_p):
    logits_NK = top_logprobs_NK[:, :top_k].astype(np.float64) / temperature
    possible_N = np.isfinite(logits_NK).sum(1)
    mass_NK = np.exp(np.nan_to_num(logits_NK, nan=-np.inf)).cumsum(1)
    if top_p < 1:
        reached_NK = mass_NK / np.maximum(mass_NK[:, -1:], 1e-300)
        possible_N = np.minimum((reached_NK < top_p).sum(1) + 1, possible_N)
    return possible_N.tolist(), np.where(possible_N > 0, mass_NK[np.arange(len(mass_NK)), possible_N - 1], np.nan)


def support_before(z_NK, top_k, top_p, min_p, slack, mass_slack):
    least = math.log(min_p) if min_p else -math.inf
    kept_NK = (z_NK >= z_NK[:, :1] + (least - slack)) & (z_NK > -torch.inf)
    kept_NK[:, top_k:] = False
    if top_p < 1:
        mass_NK = torch.where(kept_NK, z_NK, -torch.inf).softmax(1)
        kept_NK &= mass_NK.cumsum(1) - mass_NK < top_p + mass_slack
    return kept_NK


@pytest.mark.parametrize("kind", ["random", "ties", "equal", "impossible"])
@pytest.mark.parametrize(("temperature", "top_k", "top_p"), PARAMS)
def test_callers_get_the_same_bits(kind, temperature, top_k, top_p):
    logp_NK = ranked_logprobs(top_k, kind)
    for values_NK in (logp_NK, logp_NK.astype(np.float64)):
        expected_NK = distribution_before(values_NK, temperature, top_k, top_p)
        np.testing.assert_array_equal(truncated_distribution(values_NK, temperature, top_k, top_p), expected_NK)

    sizes, mass_N = truncate(logp_NK, SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p))
    expected_sizes, expected_mass_N = candidates_before(logp_NK, temperature, top_k, top_p)
    assert sizes == expected_sizes
    np.testing.assert_array_equal(mass_N, expected_mass_N)

    z_NK = torch.from_numpy(logp_NK).double() / temperature
    for min_p, slack in ((0.0, 0.0), (0.05, 0.0), (0.05, 1e-4), (0.3, -1e-4)):
        support_NK = in_top_k(z_NK, top_k, min_p, slack)
        if top_p < 1:
            mass_NK = torch.where(support_NK, z_NK, -torch.inf).softmax(1)
            support_NK &= in_top_p(mass_before(mass_NK), top_p + slack)
        assert torch.equal(support_NK, support_before(z_NK, top_k, top_p, min_p, slack, slack))


def test_arrays_and_tensors_agree():
    logp_NK = ranked_logprobs(0, "ties").astype(np.float64)
    of_array = in_top_k(logp_NK, 20, 0.01)
    assert torch.equal(torch.from_numpy(of_array), in_top_k(torch.from_numpy(logp_NK), 20, 0.01))
    assert 0 < of_array.sum() < of_array.size
