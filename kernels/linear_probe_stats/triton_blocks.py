"""Blocks of float32 logits by the library's product, and the kernels of ``probe_stats`` on them.

The logits of a block are written and read once per sweep. At H = 2,560 a product of 16 bits takes 6.5 ps per logit of
an H200, and 4 bytes of its memory take 0.9.

Shape legend: N rows, V vocabulary, H hidden size, R of the rows, B rows of a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..probe_stats import triton as logits_backend
from ..probe_stats.schema import ProbeSpec, ProbeStats, put_rows, unpack
from ..workspace import gpu_workspace_bytes
from .head import LmHead
from .logits import lm_head_logits

LOGITS_BYTES = 1 << 30  # of all models together
ROWS_TOGETHER = 128  # rows of a product's tile


@dataclass(frozen=True)
class Model:
    """Hidden states and the head that goes with them."""

    hidden_NH: Tensor
    head: LmHead

    @property
    def size(self) -> int:
        return self.hidden_NH.shape[1]

    @property
    def vocabulary(self) -> int:
        return self.head.weight_VH.shape[0]

    def rows(self, rows: slice | Tensor) -> Model:
        return Model(self.hidden_NH[rows], self.head)


def block_rows(n: int, bytes_per_row: int) -> int:
    """Rows of a block of N >= 1 rows. Blocks have about the same size, since each reads the whole head."""
    most = max(1, gpu_workspace_bytes(LOGITS_BYTES) // bytes_per_row)
    if most >= ROWS_TOGETHER:
        most -= most % ROWS_TOGETHER
    blocks = -(-n // most)
    return -(-n // blocks)


def from_logits(
    models: list[Model], token_N: Tensor, spec: ProbeSpec, out: ProbeStats, rows_R: Tensor | None = None
) -> None:
    """Every column of all rows, or of some, into ``out``."""
    n, v = token_N.shape[0] if rows_R is None else rows_R.shape[0], models[0].vocabulary
    if n == 0:
        return
    step = block_rows(n, 4 * v * len(models))
    workspace = [torch.empty(step, v, dtype=torch.float32, device=token_N.device) for _ in models]
    for first in range(0, n, step):
        block = slice(first, min(n, first + step))
        rows = block if rows_R is None else rows_R[block]
        count = block.stop - first
        logits = [
            lm_head_logits(model.hidden_NH[rows], model.head, out_BV[:count])
            for model, out_BV in zip(models, workspace, strict=True)
        ]
        packed = logits_backend.probe_stats_packed(
            logits[0], logits[1] if len(models) == 2 else None, token_N[rows], spec
        )
        put_rows(out, rows, unpack(*packed, count, spec, len(models) == 2))
