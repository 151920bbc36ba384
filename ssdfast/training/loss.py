"""The loss of a forward pass, as the model's own forward: hidden states of the scored places, then `soft_label_ce`.

As the forward of the model it runs inside whatever wraps the model (DDP, FSDP), which then sees to the gradients.

Shape legend: B rows, L tokens, S scored places, K labels, H hidden size.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

from torch import Tensor

from ..kernels import soft_label_ce
from ..models import linear_head
from .packed_attention import hidden


def make_trainable(network: Any) -> Any:
    """A causal LM of transformers, whose forward is now the loss of a pass of `batches.py`.

    ``network(inputs, label_ids_SK, label_probs_SK, weight_S) -> {"loss": nats}``, the weighted sum of the cross-entropy
    of the labels at each scored place.
    """

    def forward(
        self: Any, inputs: dict[str, Any], label_ids_SK: Tensor, label_probs_SK: Tensor, weight_S: Tensor
    ) -> dict[str, Tensor]:
        hidden_SH = hidden_rows(self, inputs)
        head = linear_head(self, hidden_SH.dtype)
        loss = soft_label_ce(hidden_SH, head, label_ids_SK, label_probs_SK, weight_N=weight_S, reduction="sum")
        return {"loss": loss}

    network.forward = MethodType(forward, network)
    return network


def hidden_rows(network: Any, inputs: dict[str, Any]) -> Tensor:
    """[S, H]: hidden states that predict the completion tokens."""
    placed = {name: inputs[name] for name in ("position_ids", "trace_lengths") if name in inputs}
    return hidden(network, inputs["input_ids"], **placed).flatten(0, 1)[inputs["row_S"]]
