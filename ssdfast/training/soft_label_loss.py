"""Soft labels in other trainers: `SoftLabelLoss` inside the trainers of transformers and TRL.

The loss needs the hidden states and the head, never all logits. Beside the head and its gradient, its memory is
bounded.

Shape legend: B rows, L tokens of a row, S scored positions, K top tokens of each, H hidden size.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ..config import EngineSamplingParams, SamplingParams
from ..kernels import LmHead, soft_label_ce
from ..models import linear_head
from .soft_labels import soft_labels

IGNORED = -100
"""The label of a token that is not trained on, as everywhere in transformers."""
_TAIL_ROWS = 1024
"""Rows whose K head vectors are gathered at a time."""


class SoftLabelLoss:
    """Cross-entropy against a teacher's distribution, from its top tokens, for trainers of transformers and TRL.

    Its gradient is that of the forward KL, which differs by the teacher's entropy, a constant. The data set has
    ``input_ids`` and ``labels`` [L] (-100 where a token is not trained on), ``top_ids`` [L, K] and ``top_logprobs``
    [L, K] in nats: row t is the teacher's distribution over token t given all tokens before it, at temperature 1 and
    without truncation; -1 and -inf fill rows with fewer tokens.

    model: the causal LM that is trained, also with adapters of peft. Its forward no longer makes logits while it trains
        with the two columns. sampling: the distribution that these parameters make of the teacher's is learned, as
        ``ssdfast train --loss soft`` does. Without it, what the teacher's mass outside of the K tokens becomes is
        `outside`: ``"renormalize"`` divides the K probabilities by their sum; ``"bucket"`` compares that mass, as one
        outcome, with the student's mass outside.
    Raises ValueError for a model whose head is not linear, and for settings that do not go together.

    >>> loss = ssd.SoftLabelLoss(network, sampling=ssd.SamplingParams(temperature=1.1, top_k=20, top_p=0.95))
    >>> loss
    SoftLabelLoss(sampling=SamplingParams(temperature=1.1, top_k=20, top_p=0.95))
    """

    def __init__(
        self,
        model: Any,
        sampling: SamplingParams | None = None,
        outside: Literal["renormalize", "bucket"] = "renormalize",
    ) -> None:
        if outside not in ("renormalize", "bucket"):
            raise ValueError(f"outside must be 'renormalize' or 'bucket', not {outside!r}")
        if sampling is not None and outside == "bucket":
            raise ValueError("outside='bucket' is for the teacher's own distribution: leave sampling out")
        network = model.get_base_model() if hasattr(model, "get_base_model") else model
        if "logits_to_keep" not in inspect.signature(network.forward).parameters:
            raise ValueError(f"{type(network).__name__} has no logits_to_keep, so its forward would make all logits")
        self.network, self.outside = network, outside
        self.sampling = None if sampling is None else EngineSamplingParams(**sampling.model_dump())
        self._columns: tuple[Tensor, Tensor] | None = None
        self._hidden_BLH: Tensor | None = None
        network.register_forward_pre_hook(self._take_columns, with_kwargs=True)
        network.base_model.register_forward_hook(self._take_hidden_states)

    def __repr__(self) -> str:
        if self.sampling is None:
            return f"SoftLabelLoss(outside={self.outside!r})"
        return f"SoftLabelLoss(sampling={SamplingParams(**_kernel_values(self.sampling))!r})"

    def __call__(
        self, outputs: Any, labels_BL: Tensor | None, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """The mean loss per trained token, in nats; with `num_items_in_batch` the sum divided by it.

        Raises ValueError where the batch has no labels or lacks the columns of the teacher.
        """
        if labels_BL is None:
            raise ValueError("SoftLabelLoss: the batch has no labels: add the column labels (-100 where not trained)")
        if self._columns is None or self._hidden_BLH is None:
            raise ValueError(
                "SoftLabelLoss: the batch has no top_ids and top_logprobs: pass data_collator=loss.collate, and"
                " remove_unused_columns=False in the arguments of the trainer"
            )
        (ids_BLK, logprobs_BLK), hidden_BLH = self._columns, self._hidden_BLH
        self._columns = self._hidden_BLH = None
        scored_BL = labels_BL[:, 1:] != IGNORED
        hidden_SH = hidden_BLH[:, :-1][scored_BL]
        ids_SK, logprobs_SK = ids_BLK[:, 1:][scored_BL], logprobs_BLK[:, 1:][scored_BL]
        count = scored_BL.sum() if num_items_in_batch is None else num_items_in_batch
        head = linear_head(self.network, hidden_SH.dtype)
        loss_S = self._losses(hidden_SH, head, ids_SK, logprobs_SK)
        total: Tensor = loss_S.sum() / torch.as_tensor(count, device=loss_S.device).clamp(min=1)
        return total

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """A batch of rows of the data set, padded to the longest: the `data_collator` of the trainer.

        ``labels`` default to ``input_ids``. Raises ValueError for a row whose columns differ in length.
        """
        longest = max(len(example["input_ids"]) for example in examples)
        k = max(len(step) for example in examples for step in example["top_ids"])
        shape = (len(examples), longest)
        batch = {
            "input_ids": torch.zeros(shape, dtype=torch.int64),
            "attention_mask": torch.zeros(shape, dtype=torch.int64),
            "labels": torch.full(shape, IGNORED),
            "top_ids": torch.full((*shape, k), -1),
            "top_logprobs": torch.full((*shape, k), -torch.inf),
        }
        for row, example in enumerate(examples):
            length = len(example["input_ids"])
            for name in ("labels", "top_ids", "top_logprobs"):
                if name in example and len(example[name]) != length:
                    raise ValueError(f"row {row} has {length} input_ids and {len(example[name])} {name}: one per token")
            batch["input_ids"][row, :length] = torch.as_tensor(example["input_ids"])
            batch["labels"][row, :length] = torch.as_tensor(example.get("labels", example["input_ids"]))
            batch["attention_mask"][row, :length] = 1
            for name in ("top_ids", "top_logprobs"):
                fill_value = -1 if name == "top_ids" else -torch.inf
                steps = [[*step, *[fill_value] * (k - len(step))] for step in example[name]]
                batch[name][row, :length] = torch.as_tensor(steps, dtype=batch[name].dtype)
        return batch

    def _take_columns(self, module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        """Before the model's forward: keep the teacher's columns, which it does not know, and ask for few logits."""
        if "top_ids" not in kwargs:
            return None
        rest = {name: value for name, value in kwargs.items() if name not in ("top_ids", "top_logprobs")}
        if "fused_lm_head" in rest:  # of TRL's metrics, which needs no logits either
            return args, rest
        self._columns = kwargs["top_ids"], kwargs["top_logprobs"]
        return args, {**rest, "logits_to_keep": 1}

    def _take_hidden_states(self, module: Any, args: Any, output: Any) -> None:
        if self._columns is not None and self._hidden_BLH is None:
            self._hidden_BLH = output[0]

    def _losses(self, hidden_SH: Tensor, head: LmHead, ids_SK: Tensor, logprobs_SK: Tensor) -> Tensor:
        """float32 [S]: cross-entropy in nats."""
        if self.sampling is not None:
            labels = soft_labels(ids_SK, logprobs_SK, self.sampling, head.weight_VH.shape[0])
            return soft_label_ce(hidden_SH, head, labels.ids_SK, labels.probs_SK)
        possible_SK = (ids_SK >= 0) & (logprobs_SK > -torch.inf)
        probs_SK = torch.where(possible_SK, logprobs_SK.double().exp(), 0.0)
        mass_S1 = probs_SK.sum(1, keepdim=True)
        ids_SK = torch.where(possible_SK, ids_SK.long(), -1)
        if self.outside == "renormalize":
            return soft_label_ce(hidden_SH, head, ids_SK, (probs_SK / mass_S1.clamp(min=1e-30)).float())
        loss_S = soft_label_ce(hidden_SH, head, ids_SK, probs_SK.float())
        tail_S = (1 - mass_S1[:, 0]).clamp(min=0).float()
        # soft_label_ce multiplies by the given mass; the rest of the teacher is compared with the rest of the student.
        return loss_S - tail_S * _log_rest(hidden_SH, head, ids_SK)


def _log_rest(hidden_SH: Tensor, head: LmHead, ids_SK: Tensor) -> Tensor:
    """float32 [S]: the log of the student's probability outside of the tokens."""
    first_S1 = ids_SK.clamp(min=0)[:, :1]
    ones_S1 = torch.ones_like(first_S1, dtype=torch.float32)
    surprisal_S = soft_label_ce(hidden_SH, head, first_S1, ones_S1)
    logits_SK = torch.cat(
        [
            _logits(hidden, head, ids)
            for hidden, ids in zip(torch.split(hidden_SH, _TAIL_ROWS), torch.split(ids_SK, _TAIL_ROWS), strict=True)
        ]
    )
    lse_S1 = surprisal_S[:, None] + logits_SK[:, :1]
    mass_S = torch.where(ids_SK >= 0, (logits_SK - lse_S1).exp(), 0.0).sum(1)
    return torch.log1p(-mass_S.clamp(max=1 - 1e-6))


def _logits(hidden_SH: Tensor, head: LmHead, ids_SK: Tensor) -> Tensor:
    """float32 [S, K]: the logits of the tokens."""
    place_SK = ids_SK.clamp(min=0)
    logits_SK = torch.einsum("sh,skh->sk", hidden_SH.float(), head.weight_VH[place_SK].float())
    if head.bias_V is not None:
        logits_SK = logits_SK + head.bias_V[place_SK].float()
    logits_SK = logits_SK * head.scale
    return torch.tanh(logits_SK / head.softcap) * head.softcap if head.softcap else logits_SK


def _kernel_values(sampling: EngineSamplingParams) -> dict[str, Any]:
    return {name: getattr(sampling, name) for name in SamplingParams.model_fields}
