"""What ``soft_label_ce`` asks of its arguments."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..linear_probe_stats.checks import check_model
from ..linear_probe_stats.head import LmHead

REDUCTIONS = ("none", "sum", "mean")


def check_labels(hidden_NH: Tensor, head: LmHead, ids_NK: Tensor, probs_NK: Tensor) -> None:
    """Raises ValueError unless hidden states, head and labels fit together; looks at no value."""
    check_model("", hidden_NH, head, empty_ok=False)
    n = hidden_NH.shape[0]
    if ids_NK.dim() != 2 or ids_NK.shape[0] != n or ids_NK.shape[1] == 0:
        got = f"got {list(ids_NK.shape)}" + (": give hard labels as ids[:, None]" if ids_NK.dim() == 1 else "")
        raise ValueError(f"label_ids_NK must have shape [{n}, K], K >= 1, {got}")
    if probs_NK.shape != ids_NK.shape:
        raise ValueError(f"label_probs_NK has shape {list(probs_NK.shape)}, label_ids_NK {list(ids_NK.shape)}")
    if ids_NK.is_floating_point() or ids_NK.dtype == torch.bool:
        raise ValueError(f"label_ids_NK must be integer, got {ids_NK.dtype}")
    _check_constant("label_probs_NK", probs_NK, hidden_NH)
    if ids_NK.device != hidden_NH.device:
        raise ValueError(f"label_ids_NK is on {ids_NK.device}, the hidden states on {hidden_NH.device}")


def check_loss(hidden_NH: Tensor, weight_N: Tensor | None, reduction: str, z_loss: float) -> None:
    """Raises ValueError for weights that do not fit, an unknown reduction, a z-loss that is negative or not finite."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    if not 0 <= z_loss < math.inf:
        raise ValueError(f"z_loss must be finite and not negative, got {z_loss}")
    if weight_N is not None:
        if weight_N.shape != hidden_NH.shape[:1]:
            raise ValueError(f"weight_N must have shape [{hidden_NH.shape[0]}], got {list(weight_N.shape)}")
        _check_constant("weight_N", weight_N, hidden_NH)


def _check_constant(name: str, tensor: Tensor, hidden_NH: Tensor) -> None:
    if not tensor.is_floating_point():
        raise ValueError(f"{name} must be floating, got {tensor.dtype}")
    if tensor.device != hidden_NH.device:
        raise ValueError(f"{name} is on {tensor.device}, the hidden states on {hidden_NH.device}")
    if tensor.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{name} requires a gradient, and gets none here: call .detach() first")


def check_label_values(ids_NK: Tensor, probs_NK: Tensor, vocabulary: int) -> None:
    """Raises ValueError that names the first label that makes no sense. Reads the labels: a GPU is waited for."""
    negative = ~(probs_NK >= 0)  # or NaN
    bad_probability = negative | (probs_NK == torch.inf)
    outside = (ids_NK < -1) | (ids_NK >= vocabulary)
    bad_NK = bad_probability | outside | ((ids_NK == -1) & (probs_NK > 0))
    if not bool(bad_NK.any()):
        return
    n, k = bad_NK.nonzero()[0].tolist()
    at, token, probability = f"[{n}, {k}]", int(ids_NK[n, k]), float(probs_NK[n, k])
    if bool(bad_probability[n, k]):
        raise ValueError(f"label_probs_NK{at} = {probability} is not a finite number >= 0")
    if bool(outside[n, k]):
        raise ValueError(
            f"label_ids_NK{at} = {token} lies outside the vocabulary 0..{vocabulary - 1}: an empty slot is -1"
        )
    raise ValueError(f"label_ids_NK{at} is an empty slot, -1, of probability {probability}: give it 0, or an id")
