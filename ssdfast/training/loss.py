"""The loss of a micro-batch as the model's own forward: hidden states of the scored positions, then `soft_label_ce`.

As the model's forward it runs inside whatever wraps the model (DDP, FSDP), which then synchronizes the gradients.

Shape legend: B rows, L tokens, S scored positions, K labels per position, H hidden size.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

from torch import Tensor

from ..kernels import soft_label_ce
from ..models import linear_head
from .packed_attention import hidden_states


def make_trainable(network: Any) -> Any:
    """A causal LM of transformers whose forward is now the loss of a micro-batch of `collate.py`.

    ``network(inputs, label_ids_SK, label_probs_SK, weight_S) -> {"loss": nats}``, the weighted sum over scored
    positions of the cross-entropy of the labels.
    """

    def forward(
        self: Any, inputs: dict[str, Any], label_ids_SK: Tensor, label_probs_SK: Tensor, weight_S: Tensor
    ) -> dict[str, Tensor]:
        hidden_SH = scored_hidden_states(self, inputs)
        head = linear_head(self, hidden_SH.dtype)
        loss = soft_label_ce(hidden_SH, head, label_ids_SK, label_probs_SK, weight_N=weight_S, reduction="sum")
        return {"loss": loss}

    network.forward = MethodType(forward, network)
    return network


def scored_hidden_states(network: Any, inputs: dict[str, Any]) -> Tensor:
    """[S, H]: the hidden states that predict the completion tokens."""
    packing = {name: inputs[name] for name in ("position_ids", "trace_lengths") if name in inputs}
    return hidden_states(network, inputs["input_ids"], **packing).flatten(0, 1)[inputs["row_S"]]
