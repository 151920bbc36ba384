"""The sweep of the fast backends: for each chunk of rows, their logits, then losses and gradients in the same memory.

Shape legend: N rows, V vocabulary, H hidden size, K label slots, R rows that are not ignored, B rows of a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from ..linear_probe_stats.head import LmHead
from ..linear_probe_stats.logits import lm_head_logits
from .gradients import Gradients
from .labelled import labelled_rows

ROWS_TOGETHER = 8  # rows per step of the CPU's product
ROOM = 16  # floats after each row, for the CPU's row kernel

# (logits_BV, ids_BK, probs_BK, weight_B or None for no gradient, loss_B to write) to the gradient in hidden @ weightᵀ,
# which may be in the logits' memory.
RowKernel = Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor], Tensor]


def losses_and_gradients(
    hidden_NH: Tensor, head: LmHead, ids_NK: Tensor, probs_NK: Tensor, weight_N: Tensor | None, gradients: Gradients,
    row_kernel: RowKernel, max_rows: int,
) -> Tensor:  # fmt: skip
    """Each row's own loss, float32 [N]; adds the gradients of their weighted sum. A chunk has at most ``max_rows``."""
    rows_R = labelled_rows(probs_NK, weight_N)
    loss_N = probs_NK.new_zeros(hidden_NH.shape[0])
    if rows_R.shape[0] == 0:
        return loss_N
    step = chunk_rows(rows_R.shape[0], max_rows)
    # One workspace for all chunks: new pages would cost a tenth of a chunk's time. A GPU's allocator keeps its memory.
    v = head.weight_VH.shape[0]
    workspace = None if hidden_NH.is_cuda else loss_N.new_empty(step, v + ROOM)[:, :v]
    for rows_B in rows_R.split(step):
        hidden_BH = hidden_NH[rows_B]
        logits_BV = lm_head_logits(hidden_BH, head, None if workspace is None else workspace[: rows_B.shape[0]])
        weight_B = weight_N[rows_B] if gradients and weight_N is not None else None
        loss_B = loss_N.new_empty(rows_B.shape)
        grad_BV = row_kernel(logits_BV, ids_NK[rows_B], probs_NK[rows_B], weight_B, loss_B)
        loss_N[rows_B] = loss_B
        if weight_B is not None:
            gradients.add_rows(rows_B, grad_BV, hidden_BH, head.weight_VH)
    return loss_N


def chunk_rows(n: int, max_rows: int) -> int:
    """Rows per chunk of N >= 1 rows. Chunks have about the same size.

    A small one would waste a pass over the head and its gradient.
    """
    max_rows = max(1, max_rows // ROWS_TOGETHER) * ROWS_TOGETHER
    chunks = math.ceil(n / max_rows)
    return min(max_rows, math.ceil(n / chunks / ROWS_TOGETHER) * ROWS_TOGETHER)
