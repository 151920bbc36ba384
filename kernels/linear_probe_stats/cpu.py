"""The CPU backend: logits of a block of rows into one workspace, the C++ statistics on them, the next block.

The workspace takes less than 64 MB for both models together, whatever N is, and stays for the next call.

Shape legend: N rows, V vocabulary, H hidden size, B rows of a block.
"""

from __future__ import annotations

import math
import mmap
import threading

import torch
from torch import Tensor

from ..probe_stats import cpu
from ..probe_stats.schema import ProbeSpec, new_packed, put_rows, unpack
from .head import LmHead
from .logits import lm_head_logits

WORKSPACE_BYTES = 56 << 20
ROWS_TOGETHER = 8  # that the product takes at a time

_of_thread = threading.local()


def linear_probe_stats_packed(
    hidden_base_NH: Tensor, head_a: LmHead, hidden_trained_NH: Tensor | None, head_b: LmHead | None, token_N: Tensor,
    spec: ProbeSpec,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The packed columns (see ``schema.columns``) of N >= 1 positions in bf16, fp16 or fp32, exact in every column.

    Raises ValueError for tensors that are not on the CPU.
    """
    cpu.check_device(hidden_base_NH)
    pair, n, v = hidden_trained_NH is not None, token_N.shape[0], head_a.weight_VH.shape[0]
    step = _block_rows(n, v, models=2 if pair else 1)
    workspaces = _workspace((2 if pair else 1) * step * v).view(-1, step, v)
    floats, ints = new_packed(hidden_base_NH, n, spec, pair)
    stats = unpack(floats, ints, n, spec, pair)
    for i in range(0, n, step):
        rows = slice(i, min(n, i + step))
        count = rows.stop - i
        a_BV = lm_head_logits(hidden_base_NH[rows], head_a, workspaces[0][:count])
        b_BV = None
        if hidden_trained_NH is not None and head_b is not None:
            b_BV = lm_head_logits(hidden_trained_NH[rows], head_b, workspaces[1][:count])
        packed = cpu.probe_stats_packed(a_BV, b_BV, token_N[rows], spec)
        put_rows(stats, rows, unpack(*packed, count, spec, pair))
    return floats, ints


def _workspace(floats: int) -> Tensor:
    """float32 [floats], which the next call of this thread gets again.

    On the heap it would leave a hole after each call, a little of which the call's results occupy, so that the next one
    does not fit into it: 32 calls held 1.1 GB that way. New pages for each call cost a tenth of its time.
    """
    kept: Tensor | None = getattr(_of_thread, "workspace", None)
    if kept is None or kept.numel() < floats:
        with torch.inference_mode(False):  # or a call outside of it could not write to what one inside has made
            kept = _of_thread.workspace = torch.frombuffer(mmap.mmap(-1, 4 * floats), dtype=torch.float32)
    return kept[:floats]


def _block_rows(n: int, v: int, models: int) -> int:
    """Rows of a block: blocks of about the same size, since a small one wastes a pass over the head."""
    most = max(1, WORKSPACE_BYTES // (4 * v * models * ROWS_TOGETHER)) * ROWS_TOGETHER
    blocks = math.ceil(n / most)
    return min(most, math.ceil(n / blocks / ROWS_TOGETHER) * ROWS_TOGETHER)
