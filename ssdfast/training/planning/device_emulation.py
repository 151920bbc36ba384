"""What a device would do that tensors without numbers cannot: which attention runs, what its kernels and the loss take
while they compute, and autocast.

Shape legend: B rows, h heads, L tokens, d head size, N scored places, V vocabulary, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ...kernels.soft_label_ce.chunks import chunk_rows
from .memory_tracker import Rooms

aten = torch.ops.aten
_CHUNK = {True: (480 << 20, 6), False: (96 << 20, 4)}
"""of `soft_label_ce` on a GPU, on a CPU: most bytes of a chunk, and bytes of a logit"""
_FLASH_ROWS = 128


def attention(on_gpu: bool) -> Callable[..., Tensor]:
    """In the place of ``F.scaled_dot_product_attention``: the kernel that torch takes for causal attention, which for
    tensors without a device it cannot choose. Attention with a mask stays as it is, and then holds all scores."""
    whole = F.scaled_dot_product_attention
    kernel = aten._scaled_dot_product_flash_attention if on_gpu else aten._scaled_dot_product_flash_attention_for_cpu

    def attend(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **rest: Any) -> Tensor:
        if attn_mask is not None:
            return whole(query, key, value, attn_mask, **rest)
        found: Tensor = kernel(query, key, value, 0.0, rest.get("is_causal", False), scale=rest.get("scale"))[0]
        return found

    return attend


def rooms(on_gpu: bool) -> Rooms:
    """Bytes that kernels take beside their results, from what they document or allocate in their sources."""
    of_loss = {torch.ops.ssdfast.soft_label_ce.default: _loss_room(on_gpu)}
    if not on_gpu:
        return of_loss
    return {**of_loss, aten._scaled_dot_product_flash_attention_backward.default: _flash_room}


def _loss_room(on_gpu: bool) -> Callable[..., int]:
    def room(hidden_NH: Tensor, weight_VH: Tensor, *rest: Any) -> int:
        v = weight_VH.shape[0]
        wanted: list[bool] = rest[6]
        most, of_logit = _CHUNK[on_gpu]
        chunk = chunk_rows(hidden_NH.shape[0], most // (of_logit * v)) * of_logit * v
        if not wanted[1] or weight_VH.dtype == torch.float32:
            return chunk
        # The sum in float32, and then its rounded copy in the place of the chunk; the copy is a result.
        return 4 * weight_VH.numel() + max(0, chunk - weight_VH.nbytes)

    return room


def _flash_room(flows_in_BhLd: Tensor, query_BhLd: Tensor, key_BhLd: Tensor, *rest: Any, **more: Any) -> int:
    """Of the backward pass: the queries' gradient in float32, and the keys' and values' for each head of queries."""
    b, heads, length, d = query_BhLd.shape
    rows = -(-length // _FLASH_ROWS) * _FLASH_ROWS
    sums = 4 * b * heads * rows * (d + 1)
    return sums + (2 * query_BhLd.nbytes if key_BhLd.shape[1] != heads else 0)


class Autocast(TorchFunctionMode):
    """bfloat16 operands for matrix products, weights converted once: what ``torch.autocast`` does to them, which knows
    real devices only."""

    _PRODUCTS = frozenset(
        {F.linear, F.conv1d, torch.conv1d, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm}
    )

    def __init__(self) -> None:
        super().__init__()
        self._weights: dict[int, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self._PRODUCTS or getattr(func, "__name__", "") == "scaled_dot_product_attention":
            args = tuple(map(self._converted, args))
            kwargs = {name: self._converted(x) for name, x in (kwargs or {}).items()}
        return func(*args, **(kwargs or {}))

    def _converted(self, x: Any) -> Any:
        if not isinstance(x, Tensor) or x.dtype != torch.float32:
            return x
        if not (x.is_leaf and x.requires_grad):
            return x.to(torch.bfloat16)
        if id(x) not in self._weights:
            self._weights[id(x)] = x.to(torch.bfloat16)
        return self._weights[id(x)]
