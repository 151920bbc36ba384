"""Checks of the arguments of ``soft_label_ce``."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..linear_probe_stats.checks import check_model
from ..linear_probe_stats.head import LmHead

REDUCTIONS = ("none", "sum", "mean")


def check_labels(hidden_NH: Tensor, head: LmHead, ids_NK: Tensor, probs_NK: Tensor) -> None:
    """Raises ValueError unless hidden states, head and labels fit together. Reads no values."""
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
        raise ValueError(f"z_loss must be in [0, inf), got {z_loss}")
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
        raise ValueError(f"{name} requires a gradient, but none flows to it: call .detach() first")


def check_label_values(ids_NK: Tensor, probs_NK: Tensor, vocabulary: int) -> None:
    """Raises ValueError that names the first impossible label. Reading the labels waits for a GPU."""
    negative = ~(probs_NK >= 0)  # or NaN
    bad_probability = negative | (probs_NK == torch.inf)
    outside = (ids_NK < -1) | (ids_NK >= vocabulary)
    bad_NK = bad_probability | outside | ((ids_NK == -1) & (probs_NK > 0))
    if not bool(bad_NK.any()):
        return
    n, k = bad_NK.nonzero()[0].tolist()
    slot, token, probability = f"[{n}, {k}]", int(ids_NK[n, k]), float(probs_NK[n, k])
    if bool(bad_probability[n, k]):
        raise ValueError(f"label_probs_NK{slot} must be in [0, inf), got {probability}")
    if bool(outside[n, k]):
        raise ValueError(f"label_ids_NK{slot} must be in [0, {vocabulary - 1}], or -1 if empty, got {token}")
    raise ValueError(f"label_ids_NK{slot} is empty (-1) but has probability {probability}: set it to 0, or give an id")
