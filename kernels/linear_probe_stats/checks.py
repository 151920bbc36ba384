"""What ``linear_probe_stats`` asks of hidden states and heads."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import DTYPES
from ..probe_stats.checks import check_token
from .head import LmHead


def check_models(
    hidden_a: Tensor,
    head_a: LmHead,
    hidden_b: Tensor | None,
    head_b: LmHead | None,
    token: Tensor,
    empty_ok: bool = False,
) -> None:
    """Raises ValueError that names the first tensor that does not fit. ``empty_ok``: a head may have no entries."""
    check_model("a", hidden_a, head_a, empty_ok)
    if (hidden_b is None) != (head_b is None):
        raise ValueError("give both hidden_trained_NH and lm_head_trained_VH, or neither")
    if hidden_b is not None and head_b is not None:
        check_model("b", hidden_b, head_b, empty_ok)
        if hidden_a.shape[0] != hidden_b.shape[0]:
            raise ValueError(f"hidden_base_NH has {hidden_a.shape[0]} rows and hidden_trained_NH {hidden_b.shape[0]}")
        rows_a, rows_b = head_a.weight_VH.shape[0], head_b.weight_VH.shape[0]
        if rows_a != rows_b:
            raise ValueError(f"the vocabularies differ: lm_head_base_VH has {rows_a} rows, lm_head_trained_VH {rows_b}")
        if hidden_a.dtype != hidden_b.dtype:
            raise ValueError(f"the two models differ in dtype: {hidden_a.dtype} and {hidden_b.dtype}")
        if hidden_a.device != hidden_b.device:
            raise ValueError(f"the two models are on different devices: {hidden_a.device} and {hidden_b.device}")
    check_token(token, hidden_a)


def check_model(model: str, hidden: Tensor, head: LmHead, empty_ok: bool) -> None:
    """Raises ValueError unless hidden states and head fit together. ``model``: a or b, or "" for the only one."""
    of_model = f"_{model}" if model else ""
    hidden_name, weight_name, weight = f"hidden{of_model}_NH", f"lm_head{of_model}_VH", head.weight_VH
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
        if tensor.stride(1) != 1 and tensor.shape[1] > 1:
            raise ValueError(f"{name} has stride {tensor.stride(1)} along H: call .contiguous() first")
    bias = head.bias_V
    if bias is None:
        return
    if bias.shape != weight.shape[:1] or not bias.is_floating_point():
        got = f"{bias.dtype} {list(bias.shape)}"
        raise ValueError(f"the bias of {weight_name} must be floating [{weight.shape[0]}], got {got}")
    if bias.device != weight.device:
        raise ValueError(f"the bias of {weight_name} is on {bias.device}, the weight on {weight.device}")
