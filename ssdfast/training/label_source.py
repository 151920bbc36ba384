"""What each scored place is to be taught: the token that was drawn there, or the distribution it was drawn from.

Shape legend: S scored places, K labels, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..config import EngineSamplingParams
from ..kernels import LmHead
from ..models import LanguageModel
from .loss import hidden_rows
from .soft_labels import soft_labels

RECOMPUTED_LABELS = 128
"""per position, of soft labels that are recomputed"""

Likeliest = Callable[[dict[str, Any]], tuple[Tensor, Tensor]]
"""a pass of batches.py to (ids, log-probabilities) [S, K] of the baseline's likeliest tokens"""


class Labels:
    """Label ids and probabilities [S, K] of a pass, and how much of the sampling distribution they miss.

    decoding: of the expected loss; None gives the sampled tokens themselves.
    likeliest: where they come from; None takes those that sampling kept.
    """

    def __init__(
        self, decoding: EngineSamplingParams | None, vocabulary: int, likeliest: Likeliest | None = None
    ) -> None:
        self.decoding, self.vocabulary, self.likeliest = decoding, vocabulary, likeliest
        self.missed = 0.0
        """largest share of q's mass outside the labels so far; an upper bound"""

    @torch.no_grad()
    def of(self, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        sampled_S = inputs["labels"]
        if self.decoding is None:
            return sampled_S[:, None], torch.ones_like(sampled_S[:, None], dtype=torch.float32)
        if self.likeliest is None:
            ids_SK, logprobs_SK = inputs["top_ids_SK"], inputs["top_logprobs_SK"]
        else:
            ids_SK, logprobs_SK = self.likeliest(inputs)
        labels = soft_labels(ids_SK, logprobs_SK, self.decoding, self.vocabulary)
        self.missed = max(self.missed, float(labels.missed_S.max()))
        return labels.ids_SK, labels.probs_SK


def of_frozen(model: LanguageModel) -> Likeliest:
    """Of a copy of the baseline that stays as it is."""
    return lambda inputs: likeliest_of(hidden_rows(model.model, inputs), model.head)


def of_adapted(adapted: Any, head: LmHead) -> Likeliest:
    """Of a peft model with its adapter switched off, which is the baseline; its head has no adapter."""

    def likeliest(inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        with adapted.disable_adapter():
            return likeliest_of(hidden_rows(adapted.get_base_model(), inputs), head)

    return likeliest


def likeliest_of(hidden_SH: Tensor, head: LmHead, k: int = RECOMPUTED_LABELS) -> tuple[Tensor, Tensor]:
    """(ids, log-probabilities) [S, K] of the likeliest tokens; the logits never exist at once."""
    from ..kernels import ProbeSpec, SamplingParams, linear_probe_stats

    greedy = SamplingParams(1.0, 1, 1.0)
    top = min(k, head.weight_VH.shape[0])
    spec = ProbeSpec(top, eval_sampling=greedy, train_sampling=greedy, lse_temperatures=(), sweeps=1)
    any_token_S = torch.zeros(len(hidden_SH), dtype=torch.int64, device=hidden_SH.device)
    found = linear_probe_stats(hidden_SH, head, None, None, any_token_S, spec).base
    return found.top_ids, found.top_logprobs
