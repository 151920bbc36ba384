"""The CPU backend: logits of a block of rows into one workspace, the C++ statistics on them, the next block.

The workspace takes less than 64 MB for both models together, whatever N is. bf16 operands are multiplied where the
processor can (AVX512_BF16), into float32 sums; everything else goes through torch's float32 product, in slices of the
head.

Shape legend: N rows, V vocabulary, H hidden size, B rows of a block.
"""

from __future__ import annotations

import math
import os

import torch
from torch import Tensor

from ..probe_stats import cpu
from ..probe_stats.schema import ProbeSpec, new_packed, put_rows, unpack
from .head import LmHead

WORKSPACE_BYTES = 48 << 20
SLICE_BYTES = 4 << 20  # of a head, as float32
ROWS_TOGETHER = 8  # that the product takes at a time


def linear_probe_stats_packed(
    hidden_a_NH: Tensor, head_a: LmHead, hidden_b_NH: Tensor | None, head_b: LmHead | None, token_N: Tensor,
    spec: ProbeSpec,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The packed columns (see ``schema.columns``) of N >= 1 positions in bf16, fp16 or fp32, exact in every column.

    Raises ValueError for tensors that are not on the CPU.
    """
    if hidden_a_NH.device.type != "cpu":
        raise ValueError(f"backend 'cpu' takes tensors on the CPU, got {hidden_a_NH.device}")
    pair, n, v = hidden_b_NH is not None, token_N.shape[0], head_a.weight_VH.shape[0]
    step = _block_rows(n, v, models=2 if pair else 1)
    workspaces = [torch.empty(step, v) for _ in range(2 if pair else 1)]
    floats, ints = new_packed(hidden_a_NH, n, spec, pair)
    stats = unpack(floats, ints, n, spec, pair)
    for i in range(0, n, step):
        rows = slice(i, min(n, i + step))
        a_BV = logits(hidden_a_NH[rows], head_a, workspaces[0])
        b_BV = None
        if hidden_b_NH is not None and head_b is not None:
            b_BV = logits(hidden_b_NH[rows], head_b, workspaces[1])
        packed = cpu.probe_stats_packed(a_BV, b_BV, token_N[rows], spec)
        put_rows(stats, rows, unpack(*packed, a_BV.shape[0], spec, pair))
    return floats, ints


def _block_rows(n: int, v: int, models: int) -> int:
    """Rows of a block: blocks of about the same size, since a small one wastes a pass over the head."""
    most = max(1, WORKSPACE_BYTES // (4 * v * models * ROWS_TOGETHER)) * ROWS_TOGETHER
    blocks = math.ceil(n / most)
    return min(most, math.ceil(n / blocks / ROWS_TOGETHER) * ROWS_TOGETHER)


def logits(hidden_BH: Tensor, head: LmHead, workspace_BV: Tensor) -> Tensor:
    """float32 logits [B, V] in the first rows of a float32 workspace."""
    out_BV = workspace_BV[: hidden_BH.shape[0]]
    weight_VH = head.weight_VH
    if hidden_BH.dtype == torch.bfloat16 and torch.ops.ssdfast_cpu.multiplies_bf16(os.environ.get("SSDFAST_CPU", "")):
        torch.ops.ssdfast_cpu.linear_logits(hidden_BH, weight_VH, out_BV)
    elif weight_VH.dtype == torch.float32:
        torch.mm(hidden_BH, weight_VH.T, out=out_BV)
    else:
        hidden_BH = hidden_BH.float()
        step = max(1, SLICE_BYTES // (4 * weight_VH.shape[1]))
        for i in range(0, weight_VH.shape[0], step):
            torch.mm(hidden_BH, weight_VH[i : i + step].float().T, out=out_BV[:, i : i + step])
    return head.finish_(out_BV)
