"""The labels of each scored position: the token that was sampled there, or the distribution it was sampled from.

Shape legend: S scored positions, K labels per position, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..config import EngineSamplingParams
from ..kernels import LmHead
from ..models import LanguageModel
from .loss import scored_hidden_states
from .soft_labels import soft_labels

RECOMPUTED_LABELS = 128
"""labels per position of soft labels that are recomputed"""

TopLogprobs = Callable[[dict[str, Any]], tuple[Tensor, Tensor]]
"""from a micro-batch of collate.py to the baseline's top (ids, log-probabilities) [S, K]"""


class LabelSource:
    """Makes label ids and probabilities [S, K] of a micro-batch, and bounds the mass of the sampling distribution that
    they miss.

    sampling: how the tokens were sampled, for soft labels; None gives the sampled tokens themselves.
    top_logprobs: computes the top log-probabilities of soft labels; None takes the stored ones.
    """

    def __init__(
        self, sampling: EngineSamplingParams | None, vocabulary: int, top_logprobs: TopLogprobs | None = None
    ) -> None:
        self.sampling, self.vocabulary, self.top_logprobs = sampling, vocabulary, top_logprobs
        self.max_missing_mass = 0.0
        """upper bound on the largest probability outside the labels of a position so far"""

    @torch.no_grad()
    def labels(self, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        sampled_S = inputs["labels"]
        if self.sampling is None:
            return sampled_S[:, None], torch.ones_like(sampled_S[:, None], dtype=torch.float32)
        if self.top_logprobs is None:
            ids_SK, logprobs_SK = inputs["top_ids_SK"], inputs["top_logprobs_SK"]
        else:
            ids_SK, logprobs_SK = self.top_logprobs(inputs)
        labels = soft_labels(ids_SK, logprobs_SK, self.sampling, self.vocabulary)
        self.max_missing_mass = max(self.max_missing_mass, float(labels.missing_mass_S.max()))
        return labels.ids_SK, labels.probs_SK


def from_frozen_copy(model: LanguageModel) -> TopLogprobs:
    """Top log-probabilities of a copy of the baseline that is not trained."""
    return lambda inputs: compute_top_logprobs(scored_hidden_states(model.model, inputs), model.head)


def from_disabled_adapters(network: Any, head: LmHead) -> TopLogprobs:
    """Top log-probabilities of a peft model without its adapters, which is the baseline. Its head has no adapter."""

    def top_logprobs(inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        with network.disable_adapter():
            return compute_top_logprobs(scored_hidden_states(network.get_base_model(), inputs), head)

    return top_logprobs


def compute_top_logprobs(hidden_SH: Tensor, head: LmHead, k: int = RECOMPUTED_LABELS) -> tuple[Tensor, Tensor]:
    """The top (ids, log-probabilities) [S, K], computed without holding all logits."""
    from ..kernels import ProbeSpec, SamplingParams, linear_probe_stats

    greedy = SamplingParams(1.0, 1, 1.0)
    top = min(k, head.weight_VH.shape[0])
    spec = ProbeSpec(top, eval_sampling=greedy, train_sampling=greedy, lse_temperatures=(), sweeps=1)
    any_token_S = torch.zeros(len(hidden_SH), dtype=torch.int64, device=hidden_SH.device)
    stats = linear_probe_stats(hidden_SH, head, None, None, any_token_S, spec)
    return stats.base.top_ids, stats.base.top_logprobs
