"""The gradients while they are summed, and how a chunk's rows are added to them.

Shape legend: N rows, V vocabulary, H hidden size, B rows of a chunk.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from ..linear_probe_stats.head import LmHead

SLICE_BYTES = 16 << 20  # of a head's rows: the workspace of a product


@dataclass(frozen=True)
class Gradients:
    """The gradients of the weighted sum of losses; None for those not required. The head's are float32 or float64."""

    hidden_NH: Tensor | None
    weight_VH: Tensor | None
    bias_V: Tensor | None

    @staticmethod
    def zeros(hidden_NH: Tensor, head: LmHead, required: list[bool]) -> Gradients:
        """Zeros for those of hidden states, weight and bias that are required."""
        for_hidden, for_weight, for_bias = required
        dtype = torch.float64 if hidden_NH.dtype == torch.float64 else torch.float32
        weight_VH = head.weight_VH
        return Gradients(
            hidden_NH.new_zeros(hidden_NH.shape) if for_hidden else None,
            weight_VH.new_zeros(weight_VH.shape, dtype=dtype) if for_weight else None,
            weight_VH.new_zeros(weight_VH.shape[:1], dtype=dtype) if for_bias else None,
        )

    def __bool__(self) -> bool:
        """Whether any is required."""
        return not (self.hidden_NH is None and self.weight_VH is None and self.bias_V is None)

    def add_rows(self, rows_B: Tensor, grad_BV: Tensor, hidden_BH: Tensor, weight_VH: Tensor) -> None:
        """Adds some rows.

        grad_BV: the gradient in ``hidden @ weightᵀ + bias``, float32, float64 or the operands' bf16.
        """
        if self.hidden_NH is not None:
            self.hidden_NH[rows_B] = _times_head(grad_BV, weight_VH).to(self.hidden_NH.dtype)
        if self.weight_VH is not None:
            _add_outer(self.weight_VH, grad_BV, hidden_BH)
        if self.bias_V is not None:
            self.bias_V.add_(grad_BV.sum(0, dtype=self.bias_V.dtype))

    def cast(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> list[Tensor]:
        """The gradients in the dtypes of their tensors; [0] for those not required."""
        parameters = (hidden, weight, weight if bias is None else bias)
        return [
            hidden.new_empty(0) if gradient is None else gradient.to(parameter.dtype)
            for parameter, gradient in zip(parameters, (self.hidden_NH, self.weight_VH, self.bias_V), strict=True)
        ]


def _times_head(grad_BV: Tensor, weight_VH: Tensor) -> Tensor:
    """grad @ weight, with the head converted in slices where it must be."""
    if grad_BV.dtype == weight_VH.dtype:
        return _product(grad_BV, weight_VH)
    sum_BH = grad_BV.new_zeros(grad_BV.shape[0], weight_VH.shape[1])
    for ids in _slices(weight_VH, grad_BV.itemsize):
        sum_BH.addmm_(grad_BV[:, ids], weight_VH[ids].to(grad_BV.dtype))
    return sum_BH


def _add_outer(sum_VH: Tensor, grad_BV: Tensor, hidden_BH: Tensor) -> None:
    """sum += gradᵀ @ hidden."""
    if grad_BV.dtype == sum_VH.dtype:
        sum_VH.addmm_(grad_BV.T, hidden_BH.to(sum_VH.dtype))
    elif adds_in_float32(grad_BV.device.type, grad_BV.dtype):
        add_product(sum_VH, grad_BV.T, hidden_BH)
    else:
        for ids in _slices(sum_VH, sum_VH.itemsize if grad_BV.is_cuda else grad_BV.itemsize):
            sum_VH[ids] += _product(grad_BV[:, ids].T, hidden_BH)


def add_product(sum_VH: Tensor, a_VB: Tensor, b_BH: Tensor) -> None:
    """sum += a @ b of 16-bit operands in one call, in the float32 accumulators of the product.

    The sum is read and written once, 8 bytes per entry; a product of its own that is then added takes 20.
    """
    torch.addmm(sum_VH, a_VB, b_BH, out_dtype=sum_VH.dtype, out=sum_VH)


@functools.cache
def adds_in_float32(device: str, dtype: torch.dtype) -> bool:
    """Whether ``add_product`` works on this kind of device, found out on a small one.

    torch has had it since 2.8 for CUDA; other devices may lack it.
    """
    a_VB, b_BH = (
        torch.ones(16, 16, device=device, dtype=dtype),
        torch.full((16, 16), 3 / 16, device=device, dtype=dtype),
    )
    sum_VH = torch.full((16, 16), 2**-20, device=device)  # lost where the sum is rounded to 16 bits
    try:
        add_product(sum_VH, a_VB.T, b_BH)
    except (RuntimeError, TypeError):  # NotImplementedError too
        return False
    return bool((sum_VH == 3 + 2**-20).all())


def _product(a: Tensor, b: Tensor) -> Tensor:
    """The product of float32 or float64, or of bf16 with float32 sums, which a CPU rounds to bf16 in the end."""
    if a.is_cuda and a.dtype == torch.bfloat16:
        return torch.mm(a, b, out_dtype=torch.float32)
    return a @ b


def _slices(x_VH: Tensor, itemsize: int) -> list[slice]:
    step = max(1, SLICE_BYTES // (itemsize * x_VH.shape[1]))
    return [slice(i, i + step) for i in range(0, x_VH.shape[0], step)]
