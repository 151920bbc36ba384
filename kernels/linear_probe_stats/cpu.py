"""The CPU backend: for each block of rows, their logits in one workspace and the C++ statistics of them.

The workspace takes less than 64 MB for both models together, whatever N is, and is kept for the next call. Each thread
has its own, and so has a forked child.

Shape legend: N rows, V vocabulary, H hidden size, B rows of a block.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import threading
from collections.abc import Iterator

import torch
from torch import Tensor

from ..probe_stats import cpu
from ..probe_stats.schema import ProbeSpec, new_packed, put_rows, unpack
from .head import LmHead
from .logits import lm_head_logits

WORKSPACE_BYTES = 56 << 20
ROWS_TOGETHER = 8  # rows per step of the product

_thread = threading.local()


def linear_probe_stats_packed(
    hidden_base_NH: Tensor, head_base: LmHead, hidden_trained_NH: Tensor | None, head_trained: LmHead | None,
    token_N: Tensor, spec: ProbeSpec,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The packed columns (see ``schema.columns``) of N >= 1 positions in bf16, fp16 or fp32, exact in every column.

    Raises ValueError for tensors that are not on the CPU.
    """
    cpu.check_device(hidden_base_NH)
    pair, n, v = hidden_trained_NH is not None, token_N.shape[0], head_base.weight_VH.shape[0]
    step = _block_rows(n, v, models=2 if pair else 1)
    floats, ints = new_packed(hidden_base_NH, n, spec, pair)
    stats = unpack(floats, ints, n, spec, pair)
    with _workspace((2 if pair else 1) * step * v) as workspace:
        logits = workspace.view(-1, step, v)
        for i in range(0, n, step):
            rows = slice(i, min(n, i + step))
            count = rows.stop - i
            a_BV = lm_head_logits(hidden_base_NH[rows], head_base, logits[0][:count])
            b_BV = None
            if hidden_trained_NH is not None and head_trained is not None:
                b_BV = lm_head_logits(hidden_trained_NH[rows], head_trained, logits[1][:count])
            packed = cpu.probe_stats_packed(a_BV, b_BV, token_N[rows], spec)
            put_rows(stats, rows, unpack(*packed, count, spec, pair))
    return floats, ints


@contextlib.contextmanager
def _workspace(floats: int) -> Iterator[Tensor]:
    """float32 [floats], which the next call of this thread gets again.

    On the heap, the results of a call would occupy a little of the hole that its workspace leaves, and the next
    workspace would not fit: 32 calls held 1.1 GB that way. New pages for each call cost a tenth of its time.
    """
    # Taken out while in use: a signal handler or a finaliser may call in the middle of this call.
    workspace: Tensor | None = vars(_thread).pop("workspace", None)
    if workspace is None or workspace.numel() < floats:
        # Private: a shared mapping, the default, would be one memory for this process and all its forked children.
        memory = mmap.mmap(-1, 4 * floats, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with torch.inference_mode(False):  # otherwise a call outside of it could not write to a tensor made inside
            workspace = torch.frombuffer(memory, dtype=torch.float32)
    try:
        yield workspace[:floats]
    finally:
        _thread.workspace = workspace


def _block_rows(n: int, v: int, models: int) -> int:
    """Rows per block. Blocks have about the same size, since a small one wastes a pass over the head."""
    max_rows = max(1, WORKSPACE_BYTES // (4 * v * models * ROWS_TOGETHER)) * ROWS_TOGETHER
    blocks = math.ceil(n / max_rows)
    return min(max_rows, math.ceil(n / blocks / ROWS_TOGETHER) * ROWS_TOGETHER)
