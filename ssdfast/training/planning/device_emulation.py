"""What meta tensors lack of a device: the choice of the attention kernel, the workspaces of kernels, and autocast.

Shape legend: B rows, h heads, L tokens, d head size, N scored positions, V vocabulary, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ...kernels.soft_label_ce.chunks import chunk_rows
from ...kernels.workspace import gpu_workspace_bytes
from .memory_tracker import Workspaces

aten = torch.ops.aten
_CHUNK = {True: (480 << 20, 6), False: (96 << 20, 4)}
"""of `soft_label_ce` on a GPU (True) and on a CPU: bytes of a chunk without another setting, and bytes per logit"""
_FLASH_ROWS = 128


def attention(on_gpu: bool) -> Callable[..., Tensor]:
    """Replaces ``F.scaled_dot_product_attention`` by the kernel that torch selects for causal attention. It cannot
    select one for meta tensors. Attention with a mask is left as it is, and holds all scores."""
    masked_attention = F.scaled_dot_product_attention
    kernel = aten._scaled_dot_product_flash_attention if on_gpu else aten._scaled_dot_product_flash_attention_for_cpu

    def attend(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **rest: Any) -> Tensor:
        if attn_mask is not None:
            return masked_attention(query, key, value, attn_mask, **rest)
        output: Tensor = kernel(query, key, value, 0.0, rest.get("is_causal", False), scale=rest.get("scale"))[0]
        return output

    return attend


def workspaces(on_gpu: bool) -> Workspaces:
    """Bytes that kernels take beside their results, by their documentation or their sources."""
    loss = {torch.ops.ssdfast.soft_label_ce.default: _loss_workspace(on_gpu)}
    if not on_gpu:
        return loss
    return {**loss, aten._scaled_dot_product_flash_attention_backward.default: _flash_workspace}


def _loss_workspace(on_gpu: bool) -> Callable[..., int]:
    def workspace(hidden_NH: Tensor, weight_VH: Tensor, *rest: Any) -> int:
        v = weight_VH.shape[0]
        needs_grad: list[bool] = rest[6]
        max_bytes, logit_bytes = _CHUNK[on_gpu]
        if on_gpu:
            max_bytes = gpu_workspace_bytes(max_bytes)
        chunk = chunk_rows(hidden_NH.shape[0], max_bytes // (logit_bytes * v)) * logit_bytes * v
        if not needs_grad[1] or weight_VH.dtype == torch.float32:
            return chunk
        # The sum in float32, and then its rounded copy, which reuses the chunk's memory and is a result.
        return 4 * weight_VH.numel() + max(0, chunk - weight_VH.nbytes)

    return workspace


def _flash_workspace(grad_output_BhLd: Tensor, query_BhLd: Tensor, key_BhLd: Tensor, *rest: Any, **more: Any) -> int:
    """Backward pass: the gradient of the queries in float32, and those of keys and values for each head of queries."""
    b, heads, length, d = query_BhLd.shape
    rows = -(-length // _FLASH_ROWS) * _FLASH_ROWS
    sums = 4 * b * heads * rows * (d + 1)
    return sums + (2 * query_BhLd.nbytes if key_BhLd.shape[1] != heads else 0)


class Autocast(TorchFunctionMode):
    """bfloat16 operands of matrix products, with weights converted once, as ``torch.autocast`` does on real devices."""

    _PRODUCTS = frozenset(
        {F.linear, F.conv1d, torch.conv1d, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm}
    )

    def __init__(self) -> None:
        super().__init__()
        self._weights: dict[int, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self._PRODUCTS or getattr(func, "__name__", "") == "scaled_dot_product_attention":
            args = tuple(map(self._to_bfloat16, args))
            kwargs = {name: self._to_bfloat16(x) for name, x in (kwargs or {}).items()}
        return func(*args, **(kwargs or {}))

    def _to_bfloat16(self, x: Any) -> Any:
        if not isinstance(x, Tensor) or x.dtype != torch.float32:
            return x
        if not (x.is_leaf and x.requires_grad):
            return x.to(torch.bfloat16)
        if id(x) not in self._weights:
            self._weights[id(x)] = x.to(torch.bfloat16)
        return self._weights[id(x)]
