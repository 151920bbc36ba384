"""The definition, in plain torch on all logits at once.

Shape legend: N rows, V vocabulary, H hidden size, K label slots, R the rows that are not ignored.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..linear_probe_stats.head import LmHead
from .gradients import Gradients
from .labelled import labelled_rows


def losses_and_gradients(
    hidden_NH: Tensor, head: LmHead, ids_NK: Tensor, probs_NK: Tensor, weight_N: Tensor | None, z_loss: float,
    gradients: Gradients,
) -> Tensor:  # fmt: skip
    """Each row's own loss [N]; adds the gradients of their weighted sum to ``gradients``.

    Computes in float64 for float64 hidden states, else in float32, the dtype of ``probs_NK`` and ``weight_N``.
    """
    dtype = probs_NK.dtype
    rows_R = labelled_rows(probs_NK, weight_N)
    hidden_RH, weight_VH = hidden_NH[rows_R].to(dtype), head.weight_VH.to(dtype)
    z_RV = head.finish_(hidden_RH @ weight_VH.T)
    q_RV = torch.zeros_like(z_RV).scatter_add_(1, ids_NK[rows_R].clamp(min=0), probs_NK[rows_R])
    mass_R, lse_R = q_RV.sum(1), z_RV.logsumexp(1)
    loss_R = mass_R * lse_R - torch.where(q_RV > 0, q_RV * z_RV, 0.0).sum(1) + z_loss * lse_R**2
    if gradients and weight_N is not None:
        grad_RV = (mass_R + 2 * z_loss * lse_R)[:, None] * (z_RV - lse_R[:, None]).exp() - q_RV
        grad_RV *= weight_N[rows_R, None] * head.scale
        if head.softcap is not None:
            grad_RV *= torch.where(z_RV == -torch.inf, 0.0, 1 - (z_RV / head.softcap) ** 2)
        gradients.add_rows(rows_R, grad_RV, hidden_RH, weight_VH)
    return probs_NK.new_zeros(hidden_NH.shape[0]).index_copy_(0, rows_R, loss_R)
