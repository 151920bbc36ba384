"""Soft labels are the distribution that tokens are sampled from."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdfast.config import EngineSamplingParams
from ssdfast.sampling.token_sampling import top_k_logprobs
from ssdfast.training.soft_labels import soft_labels

from ..sampling.oracle import distribution

VOCABULARY = 60


def logits(seed, rows=5, spread=3.0):
    return spread * torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed))


def dense(labels, dtype=torch.float64):
    full = torch.zeros(len(labels.ids_SK), VOCABULARY, dtype=dtype)
    return full.scatter_add_(1, labels.ids_SK.clamp(min=0), labels.probs_SK.to(dtype))


@given(
    st.integers(0, 1000),
    st.floats(0.3, 2.0),
    st.integers(1, 20),
    st.sampled_from([0.5, 0.8, 0.95, 1.0]),
    st.sampled_from([0.0, 0.05, 0.3]),
)
@settings(max_examples=60, deadline=None)
def test_they_are_the_distribution_of_sampled_tokens(seed, temperature, top_k, top_p, min_p):
    sampling = EngineSamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    logits_SV = logits(seed)
    labels = soft_labels(*top_k_logprobs(logits_SV, 20), sampling, VOCABULARY)
    want_SV = torch.stack([distribution(row, sampling) for row in logits_SV])
    torch.testing.assert_close(dense(labels), want_SV, rtol=1e-5, atol=1e-6)
    assert not labels.missing_mass_S.any()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (0, 0.9), (30, 1.0), (30, 0.95)])
def test_the_mass_outside_the_list_is_bounded(temperature, top_k, top_p):
    sampling = EngineSamplingParams(temperature=temperature, top_k=top_k, top_p=top_p)
    for seed in range(20):
        logits_SV = logits(seed, spread=1.5)
        labels = soft_labels(*top_k_logprobs(logits_SV, 8), sampling, VOCABULARY)
        want_SV = torch.stack([distribution(row, sampling) for row in logits_SV])
        missing_mass_S = 1 - (want_SV * (dense(labels) > 0)).sum(1)
        assert (labels.missing_mass_S >= missing_mass_S - 1e-6).all()
        assert (labels.missing_mass_S < 1).all()
        torch.testing.assert_close(labels.probs_SK.sum(1), torch.ones(5))


def test_untempered_the_bound_is_the_mass_itself():
    logits_SV = logits(0)
    labels = soft_labels(*top_k_logprobs(logits_SV, 8), EngineSamplingParams(top_k=0, top_p=1.0), VOCABULARY)
    want_S = 1 - logits_SV.double().softmax(1).topk(8).values.sum(1)
    torch.testing.assert_close(labels.missing_mass_S.double(), want_S, rtol=1e-4, atol=1e-7)


def test_empty_slots_stay_empty():
    logits_SV = torch.full((1, VOCABULARY), -torch.inf)
    logits_SV[0, [3, 7]] = torch.tensor([1.0, 0.0])
    labels = soft_labels(*top_k_logprobs(logits_SV, 5), EngineSamplingParams(top_k=0, top_p=1.0), VOCABULARY)
    assert labels.ids_SK[0].tolist() == [3, 7, -1, -1, -1]
    torch.testing.assert_close(labels.probs_SK[0, :2], torch.tensor([1.0, 0.0]).softmax(0))
    assert not labels.probs_SK[0, 2:].any()
    assert not labels.missing_mass_S.any()


def test_no_position_gives_no_label():
    ids_SK, logprobs_SK = torch.zeros(0, 4, dtype=torch.int64), torch.zeros(0, 4)
    assert soft_labels(ids_SK, logprobs_SK, EngineSamplingParams(), VOCABULARY).probs_SK.shape == (0, 4)


def test_a_presence_penalty_is_rejected():
    with pytest.raises(ValueError, match=r"presence penalty of 0\.5"):
        soft_labels(*top_k_logprobs(logits(0), 4), EngineSamplingParams(presence_penalty=0.5), VOCABULARY)
