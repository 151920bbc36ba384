"""The loss of a micro-batch, as the model's own forward: hidden states of the scored positions, then `soft_label_ce`.

As the forward of the model it runs inside whatever wraps the model (DDP, FSDP), which then sees to the gradients.

Shape legend: B traces, L tokens, S scored positions, K labels, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import SamplingConfig
from ..kernels import LmHead, soft_label_ce
from ..models import LanguageModel, linear_head
from .batches import collate
from .examples import Example
from .packing import positions
from .targets import soft_labels


def make_trainable(network: Any) -> Any:
    """A causal LM of transformers, whose forward now gives {"loss": nats}: of inputs as `padded` and `packed` make
    them."""

    def forward(
        self: Any,
        input_ids: Tensor,
        position_ids: Tensor | None,
        row_S: Tensor,
        label_ids_SK: Tensor,
        label_probs_SK: Tensor,
        weight_S: Tensor,
    ) -> dict[str, Tensor]:
        hidden_SH = hidden_rows(self, input_ids, position_ids, row_S)
        head = linear_head(self, hidden_SH.dtype)
        loss = soft_label_ce(hidden_SH, head, label_ids_SK, label_probs_SK, weight_N=weight_S, reduction="sum")
        return {"loss": loss}

    network.forward = MethodType(forward, network)
    return network


def hidden_rows(network: Any, input_ids_BL: Tensor, position_ids_BL: Tensor | None, row_S: Tensor) -> Tensor:
    """[S, H]: hidden states that predict the completion tokens."""
    placed = {} if position_ids_BL is None else {"position_ids": position_ids_BL}
    hidden_BLH = network.base_model(input_ids=input_ids_BL, use_cache=False, **placed).last_hidden_state
    return hidden_BLH.flatten(0, 1)[row_S]


def padded(examples: Sequence[Example]) -> dict[str, Any]:
    """input_ids [B, L] padded to the right, position_ids None, row_S into its B x L places, labels [S], and where they
    were kept the likeliest tokens top_ids_SK (-1 in empty slots) and top_logprobs_SK."""
    batch = collate([example.trace for example in examples])
    found: dict[str, Any] = {
        "input_ids": batch.input_ids_BL,
        "position_ids": None,
        "row_S": batch.row_S,
        "labels": batch.label_S,
    }
    return found | _tops(examples)


def packed(bins: Sequence[Sequence[Example]]) -> dict[str, Any]:
    """As `padded`, of one bin in one row [1, L], with the positions that keep its traces apart.

    The last token of a trace predicts nothing of it, and is no input.
    """
    (examples,) = bins
    traces = [example.trace for example in examples]
    inputs = [np.concatenate([trace.prompt_ids, trace.completion_ids[:-1]]).astype(np.int64) for trace in traces]
    starts = np.cumsum([0, *map(len, inputs)])
    rows = [
        np.arange(start + len(trace.prompt_ids) - 1, start + len(ids))
        for trace, ids, start in zip(traces, inputs, starts, strict=False)
    ]
    found: dict[str, Any] = {
        "input_ids": torch.from_numpy(np.concatenate(inputs))[None],
        "position_ids": positions([len(ids) for ids in inputs]),
        "row_S": torch.from_numpy(np.concatenate(rows)),
        "labels": torch.from_numpy(np.concatenate([trace.completion_ids for trace in traces]).astype(np.int64)),
    }
    return found | _tops(examples)


def _tops(examples: Sequence[Example]) -> dict[str, Tensor]:
    if any(example.top_ids_LK is None for example in examples):
        return {}
    return {
        "top_ids_SK": _joined([example.top_ids_LK for example in examples], -1),
        "top_logprobs_SK": _joined([example.top_logprobs_LK for example in examples], -torch.inf),
    }


def _joined(lists: Sequence[Any], empty: float) -> Tensor:
    """All traces' lists one after the other, as long as the longest."""
    widest = max(one.shape[1] for one in lists)
    return torch.cat(
        [torch.nn.functional.pad(torch.from_numpy(one), (0, widest - one.shape[1]), value=empty) for one in lists]
    )


class Labels:
    """Label ids and probabilities [S, K] of a micro-batch, and how much of the sampling distribution they miss.

    decoding: of the expected loss; None gives the sampled tokens themselves.
    frozen: the model whose distribution it is, where the likeliest tokens were not kept.
    """

    def __init__(self, decoding: SamplingConfig | None, vocabulary: int, frozen: LanguageModel | None = None) -> None:
        self.decoding, self.vocabulary, self.frozen = decoding, vocabulary, frozen
        self.missed = 0.0
        """largest share of q's mass outside the labels so far; an upper bound"""

    @torch.no_grad()
    def of(self, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        sampled_S = inputs["labels"]
        if self.decoding is None:
            return sampled_S[:, None], torch.ones_like(sampled_S[:, None], dtype=torch.float32)
        if self.frozen is None:
            ids_SK, logprobs_SK = inputs["top_ids_SK"], inputs["top_logprobs_SK"]
        else:
            ids_SK, logprobs_SK = self._computed(inputs)
        labels = soft_labels(ids_SK, logprobs_SK, self.decoding, self.vocabulary)
        self.missed = max(self.missed, float(labels.missed_S.max()))
        return labels.ids_SK, labels.probs_SK

    def _computed(self, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        assert self.frozen is not None
        hidden_SH = hidden_rows(self.frozen.model, inputs["input_ids"], inputs["position_ids"], inputs["row_S"])
        return likeliest_of(hidden_SH, self.frozen.head)


def likeliest_of(hidden_SH: Tensor, head: LmHead, k: int = 128) -> tuple[Tensor, Tensor]:
    """(ids, log-probabilities) [S, K] of the likeliest tokens; the logits never exist at once."""
    from ..kernels import Decoding, ProbeSpec, linear_probe_stats

    one = Decoding(1.0, 1, 1.0)
    spec = ProbeSpec(top=min(k, head.weight_VH.shape[0]), decoding=one, train=one, temperatures=(), sweeps=1)
    any_token_S = torch.zeros(len(hidden_SH), dtype=torch.int64, device=hidden_SH.device)
    found = linear_probe_stats(hidden_SH, head, None, None, any_token_S, spec).a
    return found.top_ids, found.top_logprobs
