"""float32 logits of a few positions, whatever the dtype of the model.

Products of bf16 or fp16 are exact and their sums are float32. Nothing is rounded to 16 bits: in bf16, one ULP of a
logit near 20 is an eighth of a nat.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from ..backends import can_run
from ..probe_stats.checks import has_unit_stride
from .checks import check_model
from .head import LmHead

SLICE_BYTES = 4 << 20  # of a head, as float32


@torch.no_grad()
def lm_head_logits(hidden_NH: Tensor, head: LmHead, out_NV: Tensor | None = None) -> Tensor:
    """Logits [N, V], float32, of hidden states [N, H] in bf16, fp16 or fp32, on the hidden states' device.

    out_NV: float32 [N, V] to write to, any row stride, or None for a new tensor.
    On a CPU with AVX2 or better the product of bf16 and fp32 is that of csrc/, whose sums do not depend on the other
    rows; elsewhere, and in fp16, it is torch's on float32 operands, with the head converted in slices of 4 MB. No
    gradient flows.
    Raises ValueError for operands that do not fit together, and for an ``out_NV`` of another shape, dtype or device.
    """
    check_model("", hidden_NH, head, empty_ok=True)
    n, weight_VH = hidden_NH.shape[0], head.weight_VH
    shape = (n, weight_VH.shape[0])
    if out_NV is not None:
        fits = out_NV.shape == shape and out_NV.dtype == torch.float32 and out_NV.device == hidden_NH.device
        if not fits or not has_unit_stride(out_NV):
            got = f"{out_NV.dtype} {list(out_NV.shape)} on {out_NV.device}"
            raise ValueError(
                f"out_NV must be float32 {list(shape)} on {hidden_NH.device}, unit stride along V, got {got}"
            )
    if hidden_NH.dtype == torch.float64:
        raise ValueError("the logits are float32: float64 operands need backend='reference'")
    if hidden_NH.is_cuda and weight_VH.dtype != torch.float32:
        if out_NV is None:
            out_NV = torch.mm(hidden_NH, weight_VH.T, out_dtype=torch.float32)
        else:
            torch.mm(hidden_NH, weight_VH.T, out_dtype=torch.float32, out=out_NV)
        return head.finish_(out_NV)
    if out_NV is None:
        out_NV = hidden_NH.new_empty(shape, dtype=torch.float32)
    if hidden_NH.is_cuda:
        torch.mm(hidden_NH, weight_VH.T, out=out_NV)
    elif multiplies_in(weight_VH.dtype):
        torch.ops.ssdfast_cpu.linear_logits(hidden_NH, weight_VH, out_NV, _forced())
    else:
        hidden_NH = hidden_NH.float()
        step = max(1, SLICE_BYTES // (4 * weight_VH.shape[1]))
        for i in range(0, weight_VH.shape[0], step):
            torch.mm(hidden_NH, weight_VH[i : i + step].float().T, out=out_NV[:, i : i + step])
    return head.finish_(out_NV)


def multiplies_in(dtype: torch.dtype) -> str:
    """The instruction set in which csrc/ multiplies operands of this dtype here: amx, avx512, avx2, or "" for none.

    SSDFAST_CPU=portable switches it off; another value allows what is not above it.
    """
    if dtype not in (torch.bfloat16, torch.float32) or not can_run("cpu"):
        return ""
    name: str = torch.ops.ssdfast_cpu.multiplies_in(dtype == torch.bfloat16, _forced())
    return name


def _forced() -> str:
    """The instruction set that the user forces, or ""."""
    return os.environ.get("SSDFAST_CPU", "")
