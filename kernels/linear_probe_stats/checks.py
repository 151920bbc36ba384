"""Checks of hidden states and heads."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import DTYPES
from ..probe_stats.checks import check_token, has_unit_stride
from .head import LmHead


def check_models(
    hidden_base: Tensor,
    head_base: LmHead,
    hidden_trained: Tensor | None,
    head_trained: LmHead | None,
    token: Tensor,
    empty_ok: bool = False,
) -> None:
    """Raises ValueError that names the first tensor that does not fit. ``empty_ok`` allows a head without entries."""
    check_model("_base", hidden_base, head_base, empty_ok)
    if (hidden_trained is None) != (head_trained is None):
        raise ValueError("give both hidden_trained_NH and lm_head_trained_VH, or neither")
    if hidden_trained is not None and head_trained is not None:
        check_model("_trained", hidden_trained, head_trained, empty_ok)
        if hidden_base.shape[0] != hidden_trained.shape[0]:
            raise ValueError(
                f"hidden_base_NH has {hidden_base.shape[0]} rows and hidden_trained_NH {hidden_trained.shape[0]}"
            )
        rows_base, rows_trained = head_base.weight_VH.shape[0], head_trained.weight_VH.shape[0]
        if rows_base != rows_trained:
            raise ValueError(
                f"the vocabularies differ: lm_head_base_VH has {rows_base} rows, lm_head_trained_VH {rows_trained}"
            )
        both = "hidden_base_NH and hidden_trained_NH"
        if hidden_base.dtype != hidden_trained.dtype:
            raise ValueError(f"{both} differ in dtype: {hidden_base.dtype} and {hidden_trained.dtype}")
        if hidden_base.device != hidden_trained.device:
            raise ValueError(f"{both} are on different devices: {hidden_base.device} and {hidden_trained.device}")
    check_token(token, hidden_base)


def check_model(suffix: str, hidden: Tensor, head: LmHead, empty_ok: bool) -> None:
    """Raises ValueError unless hidden states and head fit together. ``suffix``: of their names in messages."""
    hidden_name, weight_name, weight = f"hidden{suffix}_NH", f"lm_head{suffix}_VH", head.weight_VH
    if hidden.dim() != 2:
        raise ValueError(f"{hidden_name} must have shape [N, H], got {list(hidden.shape)}")
    if weight.dim() != 2:
        raise ValueError(f"{weight_name} must have shape [V, H], got {list(weight.shape)}")
    if hidden.dtype not in (*DTYPES, torch.float64):
        raise ValueError(f"{hidden_name} must be bf16, fp16, fp32 or fp64, got {hidden.dtype}")
    if weight.dtype != hidden.dtype:
        raise ValueError(f"{hidden_name} is {hidden.dtype}, {weight_name} {weight.dtype}: convert one of them")
    if weight.shape[1] != hidden.shape[1]:
        raise ValueError(f"{hidden_name} has hidden size {hidden.shape[1]}, {weight_name} {weight.shape[1]}")
    if weight.shape[1] == 0 or (weight.shape[0] == 0 and not empty_ok):
        raise ValueError(f"{weight_name} is empty: {list(weight.shape)}")
    if weight.device != hidden.device:
        raise ValueError(f"{hidden_name} is on {hidden.device}, {weight_name} on {weight.device}")
    for name, tensor in ((hidden_name, hidden), (weight_name, weight)):
        if not has_unit_stride(tensor):
            raise ValueError(f"{name} has stride {tensor.stride(1)} along H: call .contiguous() first")
    bias = head.bias_V
    if bias is None:
        return
    if bias.shape != weight.shape[:1] or not bias.is_floating_point():
        got = f"{bias.dtype} {list(bias.shape)}"
        raise ValueError(f"the bias of {weight_name} must be floating [{weight.shape[0]}], got {got}")
    if bias.device != weight.device:
        raise ValueError(f"the bias of {weight_name} is on {bias.device}, the weight on {weight.device}")
