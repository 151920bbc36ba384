"""Soft labels: at every position the distribution q that the token was sampled from, from the baseline's top
log-probabilities.

A sampled token is one draw from q. The soft loss, cross-entropy against q, is the expectation of the sampled loss: its
gradient is the same on average, without the noise of the draw.

Shape legend: S scored positions, K top log-probabilities of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import EngineSamplingParams
from ..sampling_distribution import in_top_k, in_top_p, mass_before


@dataclass(frozen=True)
class SoftLabels:
    """q at S positions, as `soft_label_ce` takes it."""

    ids_SK: Tensor
    """int64; -1 in an empty slot"""
    probs_SK: Tensor
    """float32; each row sums to 1; 0 outside the support"""
    missing_mass_S: Tensor
    """float32: an upper bound on q's mass on tokens outside the list; 0 if the list holds the whole support"""


def soft_labels(
    top_ids_SK: Tensor, top_logprobs_SK: Tensor, sampling: EngineSamplingParams, vocabulary: int
) -> SoftLabels:
    """q from the K top tokens and their log-probabilities before temperature and truncation.

    top_ids_SK: integer, by descending log-probability, -1 (with -inf) in slots beyond the possible tokens.
    The operators are those of sampling, in its order: temperature, min-p, top-k, top-p. q is exact if its support has
    at most K tokens; otherwise it is q restricted to the list.
    Raises ValueError for a presence penalty, with which q depends on the completion so far.
    """
    if sampling.presence_penalty:
        raise ValueError(
            f"a presence penalty of {sampling.presence_penalty:g} makes the sampling distribution depend on the text so"
            " far, which stored log-probabilities do not show: train on the sampled tokens (loss=sampled)"
        )
    possible_SK = (top_ids_SK >= 0) & (top_logprobs_SK > -torch.inf)
    z_SK = torch.where(possible_SK, top_logprobs_SK.double() / sampling.temperature, -torch.inf)
    support_SK = in_top_k(z_SK, sampling.top_k, sampling.min_p)
    missing_S = _missing_mass(z_SK, support_SK, sampling, vocabulary)
    mass_SK = torch.where(support_SK, z_SK, -torch.inf).softmax(1)
    if sampling.top_p < 1:
        # The mass before a token, of all tokens and not of the list's alone.
        support_SK &= in_top_p(mass_before(mass_SK) * (1 - missing_S)[:, None], sampling.top_p)
        # The prefix exceeds top_p by less than its last token, which is no likelier than the list's last.
        reached_S = (sampling.top_p + mass_SK[:, -1:].sum(1) * (1 - missing_S)).clamp(max=1)
        missing_S = (1 - (1 - missing_S) / reached_S).clamp(min=0)
        mass_SK = torch.where(support_SK, z_SK, -torch.inf).softmax(1)
    probs_SK = torch.where(support_SK, mass_SK, 0.0).float()
    return SoftLabels(torch.where(support_SK, top_ids_SK.long(), -1), probs_SK, missing_S.float())


def _missing_mass(z_SK: Tensor, support_SK: Tensor, sampling: EngineSamplingParams, vocabulary: int) -> Tensor:
    """float64 [S]: an upper bound on the tempered mass of tokens outside the list, before top-p.

    There are at most n of them, none likelier than the list's last token, and together they have the mass that the list
    leaves. Above T = 1 their tempered mass is largest if that mass is spread evenly, below if it is on as few tokens as
    possible.
    """
    listed = support_SK.shape[1]
    more = (min(sampling.top_k, vocabulary) if sampling.top_k else vocabulary) - listed
    if more <= 0:
        return support_SK.new_zeros(len(support_SK), dtype=torch.float64)
    t = sampling.temperature
    head_S = torch.where(support_SK, z_SK, -torch.inf).logsumexp(1).exp()
    last_S = (z_SK[:, -1] * t).exp()
    left_S = torch.minimum((1 - (z_SK * t).exp().sum(1)).clamp(min=0), more * last_S)
    if t >= 1:
        tail_S = more * (left_S / more) ** (1 / t)
    else:
        tail_S = torch.where(last_S > 0, left_S * last_S ** (1 / t - 1), 0.0)
    # min-p removes every token that is less likely than one it has removed.
    tail_S = torch.where(support_SK[:, -1], tail_S, 0.0)
    return tail_S / (tail_S + head_S)
