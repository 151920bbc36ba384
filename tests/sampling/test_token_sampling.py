"""Draws follow the sampling distribution, and a draw that rounding could change is called close."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdfast.config import EngineSamplingParams
from ssdfast.sampling.token_sampling import CLOSE_SCORE, Noise, draw, top_k_logprobs

from .oracle import chi_squared_p, distribution

SAMPLINGS = [
    EngineSamplingParams(temperature=1.1),
    EngineSamplingParams(temperature=1.3, top_k=0, top_p=1.0),
    EngineSamplingParams(temperature=0.6, top_k=0, top_p=1.0),
    EngineSamplingParams(top_k=0, top_p=0.9),
    EngineSamplingParams(top_k=0, top_p=1.0, min_p=0.05),
    EngineSamplingParams(temperature=0.7, top_k=30, top_p=0.97, min_p=0.02),
    EngineSamplingParams(temperature=2.0, top_k=5, top_p=0.6),
    EngineSamplingParams(top_k=1),
    EngineSamplingParams(top_k=95, top_p=0.5),
    EngineSamplingParams(top_k=250, top_p=1.0),
]


def noise(count, seed=0, step=3):
    return Noise(np.arange(count, dtype=np.uint64) + np.uint64(seed), np.full(count, step, np.uint64))


def some_logits(vocabulary, seed=0):
    return 2 * torch.randn(vocabulary, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("vocabulary", [96, 300])
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_draws_follow_the_definition(sampling, vocabulary):
    logits_V, n = some_logits(vocabulary), 30_000
    drawn = draw(logits_V.expand(n, vocabulary), sampling, noise(n))
    want_V = distribution(logits_V, sampling)
    assert chi_squared_p(torch.bincount(drawn.ids_B, minlength=vocabulary).tolist(), want_V.tolist()) > 1e-4


def test_the_test_of_draws_can_fail():
    logits_V, n = some_logits(96), 30_000
    drawn = draw(logits_V.expand(n, 96), EngineSamplingParams(temperature=1.1), noise(n))
    counts = torch.bincount(drawn.ids_B, minlength=96).tolist()
    for other in (EngineSamplingParams(temperature=1.05), EngineSamplingParams(temperature=1.1, top_p=0.9)):
        assert chi_squared_p(counts, distribution(logits_V, other).tolist()) < 1e-6


def test_the_same_seed_draws_anew_at_each_step():
    logits_V, n = some_logits(96), 30_000
    steps = Noise(np.full(n, 7, np.uint64), np.arange(n, dtype=np.uint64))
    sampling = EngineSamplingParams(temperature=1.5, top_k=0, top_p=1.0)
    ids = draw(logits_V.expand(n, 96), sampling, steps).ids_B
    assert chi_squared_p(torch.bincount(ids, minlength=96).tolist(), distribution(logits_V, sampling).tolist()) > 1e-4
    pairs = torch.bincount(ids[:-1] * 96 + ids[1:], minlength=96 * 96)
    product = torch.outer(*[distribution(logits_V, sampling)] * 2).flatten()
    assert chi_squared_p(pairs.tolist(), product.tolist()) > 1e-4


@pytest.mark.parametrize("vocabulary", [96, 300])
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_rounding_changes_only_draws_that_are_close(sampling, vocabulary):
    n = 4_000
    generator = torch.Generator().manual_seed(1)
    logits_NV = 2 * torch.randn(n, vocabulary, generator=generator)
    logits_NV[: n // 4] = logits_NV[: n // 4].round(decimals=1)  # many ties
    moved_NV = logits_NV + (torch.rand(n, vocabulary, generator=generator) - 0.5) * 1e-4
    one, other = (draw(x, sampling, noise(n)) for x in (logits_NV, moved_NV))
    assert not ((one.ids_B != other.ids_B) & ~one.close_B).any()
    untied = one.close_B[n // 4 :]
    assert untied.float().mean() < 0.01


def test_ties_at_the_edge_are_close_and_go_to_the_smaller_id():
    logits_NV = torch.zeros(2_000, 200)
    drawn = draw(logits_NV, EngineSamplingParams(top_k=4, top_p=1.0), noise(2_000))
    assert set(drawn.ids_B.tolist()) == {0, 1, 2, 3}
    assert drawn.close_B.all()


def test_a_token_that_cannot_occur_is_never_drawn():
    logits_NV = torch.full((500, 200), -torch.inf)
    logits_NV[:, [5, 150]] = 0.0
    for sampling in (
        EngineSamplingParams(),
        EngineSamplingParams(top_k=0, top_p=1.0),
        EngineSamplingParams(top_k=0, top_p=0.9),
    ):
        assert set(draw(logits_NV, sampling, noise(500)).ids_B.tolist()) == {5, 150}


def test_greedy_draws_are_close_only_where_two_tokens_nearly_tie():
    logits_NV = torch.zeros(2, 200)
    logits_NV[:, 3] = 1.0
    logits_NV[0, 9] = 1.0 - CLOSE_SCORE / 2
    drawn = draw(logits_NV, EngineSamplingParams(top_k=1), noise(2))
    assert drawn.ids_B.tolist() == [3, 3]
    assert drawn.close_B.tolist() == [True, False]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**63 - 1), st.integers(0, 2**40), st.integers(0, 10**6))
def test_noise_depends_on_seed_step_and_token_alone(seed, step, token):
    def one(seed, step, token, others):
        seeds, steps = np.array([5, seed], np.uint64), np.array([0, step], np.uint64)
        return Noise(seeds, steps).gumbel(np.array([[1, *others], [token, *others]]))[1, 0]

    assert one(seed, step, token, [3]) == one(seed, step, token, [8, 9])
    assert np.isfinite(one(seed, step, token, [3]))
    assert len({one(seed + a, step + b, token + c, []) for a in (0, 1) for b in (0, 1) for c in (0, 1)}) == 8


def test_the_likeliest_are_exact_with_ties_by_smaller_id():
    logits_NV = torch.zeros(1, 200)
    logits_NV[0, [50, 20]] = 2.0
    ids_BK, logprobs_BK = top_k_logprobs(logits_NV, 4)
    assert ids_BK.tolist() == [[20, 50, 0, 1]]
    want = logits_NV.double().log_softmax(1)[0, [20, 50, 0, 1]].float()
    torch.testing.assert_close(logprobs_BK[0], want)
