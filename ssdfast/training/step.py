"""One trace's part of a training step: forward, loss and backward, in memory that `memory.py` bounds.

Shape legend: B sequences, L tokens of the longest, N scored rows, K label slots, V vocabulary, H hidden size.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..kernels import soft_label_ce
from ..models import linear_head
from .memory import decoder


def step(
    model: nn.Module,
    input_ids_BL: Tensor,
    rows_N: Tensor,
    label_ids_NK: Tensor,
    label_probs_NK: Tensor,
    weight_N: Tensor | None = None,
) -> Tensor:
    """Adds the gradients of the summed loss to the parameters' `grad`; returns the loss, a float32 number in nats.

    rows_N: where the labels are predicted, as indices into the flattened [B * L]. weight_N: factor of each row's loss;
    1 / (rows of the whole batch) makes the sum over a batch's traces its mean. Labels as in `soft_label_ce`.
    Padding stands to the right of a sequence, where causal attention keeps it from every scored row.
    """
    hidden_BLH = decoder(model)(input_ids=input_ids_BL, use_cache=False).last_hidden_state
    scored_NH = hidden_BLH.flatten(0, 1)[rows_N]
    del hidden_BLH
    # Two backward passes in a row. In one, the head's gradient and the room it is computed in would stay while the
    # layers go backward: with tied embeddings to the very end.
    leaf_NH = scored_NH.detach().requires_grad_()
    loss = soft_label_ce(
        leaf_NH, linear_head(model, leaf_NH.dtype), label_ids_NK, label_probs_NK,
        weight_N=weight_N, reduction="sum",
    )  # fmt: skip
    loss.backward()
    flows_in_NH = leaf_NH.grad
    loss = loss.detach()
    del leaf_NH
    scored_NH.backward(flows_in_NH)
    return loss
