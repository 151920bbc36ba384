"""Labels of the expected loss: at every position the baseline's decoding distribution q, from its likeliest tokens.

A sampled token is one draw from q. Putting q in its place leaves the expected gradient as it is and takes the draw's
noise out.

Shape legend: S scored positions, K likeliest tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import EngineSamplingParams


@dataclass(frozen=True)
class SoftLabels:
    """q at S positions, as `soft_label_ce` takes it."""

    ids_SK: Tensor
    """int64; -1 in an empty slot"""
    probs_SK: Tensor
    """float32, of mass 1 a row; 0 outside the support"""
    missed_S: Tensor
    """float32: at most this share of q's mass lies on tokens that the list does not hold; 0 where it holds them all"""


def soft_labels(
    top_ids_SK: Tensor, top_logprobs_SK: Tensor, decoding: EngineSamplingParams, vocabulary: int
) -> SoftLabels:
    """q from lists of the K likeliest tokens and their log-probabilities before temperature and truncation.

    top_ids_SK: integer, falling log-probability, -1 (with -inf) in slots beyond the tokens that can occur.
    Operators in the order of decoding: temperature, min-p, top-k, top-p. Where `decoding` keeps at most K tokens q is
    exact; otherwise it is q restricted to the list.
    Raises ValueError for a presence penalty, which makes q depend on what the completion holds already.
    """
    if decoding.presence_penalty:
        raise ValueError(
            f"a presence penalty of {decoding.presence_penalty:g} makes the sampling distribution depend on the text so"
            " far, which stored probabilities do not show: train on the sampled tokens (loss=sampled)"
        )
    possible_SK = (top_ids_SK >= 0) & (top_logprobs_SK > -torch.inf)
    z_SK = torch.where(possible_SK, top_logprobs_SK.double() / decoding.temperature, -torch.inf)
    kept_SK = possible_SK.clone()
    if decoding.min_p:
        kept_SK &= z_SK >= z_SK[:, :1] + math.log(decoding.min_p)
    if decoding.top_k:
        kept_SK[:, decoding.top_k :] = False
    missed_S = _missed(z_SK, kept_SK, decoding, vocabulary)
    mass_SK = torch.where(kept_SK, z_SK, -torch.inf).softmax(1)
    if decoding.top_p < 1:
        # The mass before a token, of all tokens, decides whether it belongs to the shortest prefix that reaches top_p.
        before_SK = (mass_SK.cumsum(1) - mass_SK) * (1 - missed_S)[:, None]
        kept_SK &= before_SK < decoding.top_p
        # The prefix goes beyond top_p by less than its last token, which is no likelier than the list's last.
        reached_S = (decoding.top_p + mass_SK[:, -1:].sum(1) * (1 - missed_S)).clamp(max=1)
        missed_S = (1 - (1 - missed_S) / reached_S).clamp(min=0)
        mass_SK = torch.where(kept_SK, z_SK, -torch.inf).softmax(1)
    probs_SK = torch.where(kept_SK, mass_SK, 0.0).float()
    return SoftLabels(torch.where(kept_SK, top_ids_SK.long(), -1), probs_SK, missed_S.float())


def _missed(z_SK: Tensor, kept_SK: Tensor, decoding: EngineSamplingParams, vocabulary: int) -> Tensor:
    """float64 [S]: the most that tokens beyond the list can have of the tempered mass, before top-p.

    They are at most n, none likelier than the list's last token, and together have the mass that the list leaves. Above
    T = 1 their tempered mass is largest where that is spread evenly, below where it is on as few tokens as can be.
    """
    listed = kept_SK.shape[1]
    more = (min(decoding.top_k, vocabulary) if decoding.top_k else vocabulary) - listed
    if more <= 0:
        return kept_SK.new_zeros(len(kept_SK), dtype=torch.float64)
    t = decoding.temperature
    head_S = torch.where(kept_SK, z_SK, -torch.inf).logsumexp(1).exp()
    last_S = (z_SK[:, -1] * t).exp()
    left_S = torch.minimum((1 - (z_SK * t).exp().sum(1)).clamp(min=0), more * last_S)
    if t >= 1:
        tail_S = more * (left_S / more) ** (1 / t)
    else:
        tail_S = torch.where(last_S > 0, left_S * last_S ** (1 / t - 1), 0.0)
    # min-p leaves out whatever is less likely than what it has left out already.
    tail_S = torch.where(kept_SK[:, -1], tail_S, 0.0)
    return tail_S / (tail_S + head_S)
