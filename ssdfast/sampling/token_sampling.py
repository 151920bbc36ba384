"""Token sampling from the distribution that `sampling_distribution` defines, after the presence penalty.

A token v of the support gets the score logit_v / T + noise(seed, step, v) with Gumbel noise, and the token with the
highest score is sampled: that is a draw from the softmax over the support (Gumbel 1954; Maddison et al. 2014). The
noise is a hash, so that each trace has its own noise, the same on every machine.

A draw is *close* where logits that differ by rounding, as they do at another batch size, could give a different token:
the second score is that near, or the token is at the edge of the support. This happens about once in some thousand
draws, whatever the size of the support; inverting a cumulative sum would make it a hundred times as frequent in a flat
tail.

Shape legend: B traces, V vocabulary, K candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..config import EngineSamplingParams
from ..kernels import ModelStats, ProbeSpec, SamplingParams, probe_stats
from ..sampling_distribution import in_top_k, in_top_p, mass_before

MAX_TOP = 128  # the kernels' longest list of most likely tokens
# At T = 1. The batch size changes a float32 logit of SmolLM2 by 5e-5 at most. If all logits change by that much,
# independently, the difference of two scores changes by 1e-4 and a cumulative mass by 2.5e-5.
CLOSE_SCORE = 2e-4
CLOSE_MASS = 5e-5
_HEAD = MAX_TOP - 8  # of an untruncated distribution; the rest of the list shows what nearly ties with its last token
_TAIL = -1  # the id that stands for all tokens outside the head


@dataclass(frozen=True)
class SampledTokens:
    """Tokens sampled from logits."""

    ids_B: Tensor
    """int64"""
    close_B: Tensor
    """bool: logits that differ by rounding could give a different token"""


@dataclass(frozen=True)
class Noise:
    """The state of each trace's stream of random numbers."""

    seeds_B: np.ndarray
    """uint64"""
    steps_B: np.ndarray
    """uint64: the number of tokens sampled so far"""

    def gumbel(self, ids_BK: np.ndarray) -> np.ndarray:
        """Float64 [B, K]: standard Gumbel noise of each token at each trace's step."""
        stream_B = _splitmix(self.seeds_B ^ _splitmix(self.steps_B))
        bits_BK = _splitmix(stream_B[:, None] ^ _splitmix(ids_BK.astype(np.int64).view(np.uint64)))
        uniform_BK = ((bits_BK >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        noise_BK: np.ndarray = -np.log(-np.log(uniform_BK))
        return noise_BK

    def row(self, row: int) -> Noise:
        return Noise(self.seeds_B[row : row + 1], self.steps_B[row : row + 1])


def _splitmix(bits: np.ndarray) -> np.ndarray:
    """uint64 in, uint64 out: the output function of SplitMix64 (Steele, Lea, Flood 2014)."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = bits ^ (bits >> np.uint64(31))
    return mixed


def top_k_logprobs(logits_BV: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(ids int64 [B, k], log-probabilities float32 [B, k]) of the k <= 128 most likely tokens, ties by smaller id.

    Slots beyond the possible tokens hold -1 and -inf.
    """
    top = _top(logits_BV, k)
    return top.top_ids, top.top_logprobs


def draw(logits_BV: Tensor, sampling: EngineSamplingParams, noise: Noise) -> SampledTokens:
    """Sample one token per row. logits_BV: float32, with the penalty already subtracted."""
    vocabulary = logits_BV.shape[1]
    truncates = sampling.top_k or sampling.top_p < 1 or sampling.min_p
    if not truncates and vocabulary > MAX_TOP:
        return _draw_from_all(logits_BV, sampling.temperature, noise)
    top_k = min(sampling.top_k or vocabulary, vocabulary)
    if top_k < min(MAX_TOP, vocabulary):  # one more, which may be close to the support
        ids_BK, falling_BK = top_k_logprobs(logits_BV, top_k + 1)
    else:
        falling_BV, order_BV = logits_BV.sort(dim=1, descending=True, stable=True)
        falling_BK, ids_BK = falling_BV[:, : top_k + 1], order_BV[:, : top_k + 1]
    return _draw_from_top(falling_BK.double() / sampling.temperature, ids_BK, top_k, sampling, noise)


def _draw_from_top(
    z_BK: Tensor, ids_BK: Tensor, top_k: int, sampling: EngineSamplingParams, noise: Noise
) -> SampledTokens:
    """z_BK: logits / T up to a constant, falling: top_k of them and, unless that is all, the next one."""
    z_BK = torch.where(ids_BK >= 0, z_BK, -torch.inf)
    score_BK = z_BK + torch.from_numpy(noise.gumbel(ids_BK.cpu().numpy())).to(z_BK.device)
    close_score, close_mass = CLOSE_SCORE / sampling.temperature, CLOSE_MASS / sampling.temperature

    def support_size(slack: float) -> Tensor:
        """The size of the support [B, 1] where rounding adds tokens (slack 1), removes some (-1), or is ignored (0)."""
        support_BK = in_top_k(z_BK, top_k, sampling.min_p, slack * close_score)
        if sampling.top_p < 1:
            mass_BK = torch.where(support_BK, z_BK, -torch.inf).softmax(1)
            support_BK &= in_top_p(mass_before(mass_BK), sampling.top_p + slack * close_mass)
        return support_BK.sum(1, keepdim=True).clamp(min=1)

    place_K = torch.arange(z_BK.shape[1], device=z_BK.device)
    winner_B1 = torch.where(place_K < support_size(0.0), score_BK, -torch.inf).argmax(1, keepdim=True)
    # Tokens that tie with the last of the support, or with the first outside it, can take its place.
    loose_BK = z_BK >= z_BK.gather(1, support_size(1.0) - 1) - close_score
    next_B1 = support_size(-1.0)
    first_out_B1 = z_BK.gather(1, next_B1.clamp(max=z_BK.shape[1] - 1))
    tight_BK = (place_K < next_B1) & ((z_BK > first_out_B1 + close_score) | (next_B1 == z_BK.shape[1]))
    rivals_BK = torch.where(loose_BK & (place_K != winner_B1), score_BK, -torch.inf)
    rivalled_B = score_BK.gather(1, winner_B1)[:, 0] - rivals_BK.amax(1) < close_score
    unseen_B = (z_BK.shape[1] == top_k + 1) & loose_BK[:, -1]  # more of them may tie beyond the list
    close_B = (~tight_BK.gather(1, winner_B1)[:, 0] | rivalled_B | unseen_B) & (loose_BK.sum(1) > 1)
    return SampledTokens(ids_BK.gather(1, winner_B1)[:, 0], close_B)


def _draw_from_all(logits_BV: Tensor, temperature: float, noise: Noise) -> SampledTokens:
    """No truncation: the head token by token, all others first as one, and one by one where that wins."""
    top, k = _top(logits_BV, MAX_TOP, temperature), _HEAD
    lse_T_B1 = top.lse[:, None] if temperature == 1 else top.lse_T
    shift_B1 = lse_T_B1.double() - top.lse[:, None].double() / temperature
    z_BK = torch.where(top.top_ids >= 0, top.top_logprobs.double() / temperature - shift_B1, -torch.inf)
    score_BK = z_BK + torch.from_numpy(noise.gumbel(top.top_ids.cpu().numpy())).to(z_BK.device)
    of_tail_B1 = torch.from_numpy(noise.gumbel(np.full((len(z_BK), 1), _TAIL))).to(z_BK.device)
    tail_B1 = (1.0 - z_BK[:, :k].exp().sum(1, keepdim=True)).clamp(min=0.0).log() + of_tail_B1
    best_B2, place_B2 = torch.cat([score_BK[:, :k], tail_B1], 1).topk(2, dim=1)
    in_tail_B = place_B2[:, 0] == k
    ids_B = top.top_ids.gather(1, place_B2[:, :1].clamp(max=k - 1))[:, 0]

    close_score = CLOSE_SCORE / temperature
    close_B = best_B2[:, 0] - best_B2[:, 1] < close_score
    # Where the head's last token and the first outside nearly tie, each may be on the other side.
    edge_BK = (z_BK <= z_BK[:, k - 1 : k] + close_score) & (z_BK >= z_BK[:, k : k + 1] - close_score)
    edge_wins_B = torch.where(edge_BK, score_BK, -torch.inf).amax(1) > best_B2[:, 0] - close_score
    tie_B = z_BK[:, k - 1] - z_BK[:, k] < close_score
    close_B |= tie_B & (in_tail_B | edge_wins_B | edge_BK[:, -1])
    for row in torch.nonzero(in_tail_B)[:, 0].tolist():
        z_V = logits_BV[row].double() / temperature
        z_V[top.top_ids[row, :k]] = -torch.inf
        score_V = z_V + torch.from_numpy(noise.row(row).gumbel(np.arange(len(z_V))[None])[0]).to(z_V.device)
        best_2, place_2 = score_V.topk(2)
        ids_B[row] = place_2[0]
        close_B[row] |= best_2[0] - best_2[1] < close_score
    return SampledTokens(ids_B, close_B)


def _top(logits_BV: Tensor, k: int, temperature: float = 1.0) -> ModelStats:
    """The kernels' columns of one model: top list of k, normaliser, and that at a temperature."""
    greedy = SamplingParams(1.0, 1, 1.0)
    lse_temperatures = () if temperature == 1 else (temperature,)
    spec = ProbeSpec(k, eval_sampling=greedy, train_sampling=greedy, lse_temperatures=lse_temperatures, sweeps=1)
    any_token_B = torch.zeros(len(logits_BV), dtype=torch.int64, device=logits_BV.device)
    return probe_stats(logits_BV, None, any_token_B, spec).base
