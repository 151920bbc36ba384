"""The definition: float64 logits by plain torch, a few rows at a time, and the reference of ``probe_stats`` on them.

Shape legend: N scored positions, V vocabulary, H hidden size (each model its own).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..probe_stats import reference
from ..probe_stats.schema import ProbeSpec, new_packed, put_rows, unpack
from .head import LmHead

BLOCK_LOGITS = 1 << 20  # of each model; the statistics take about 200 bytes per logit


def linear_probe_stats_packed(
    hidden_base_NH: Tensor, head_base: LmHead, hidden_trained_NH: Tensor | None, head_trained: LmHead | None,
    token_N: Tensor, spec: ProbeSpec,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The packed columns (see ``schema.columns``), computed in float64; float32 but for float64 hidden states."""
    n, pair = token_N.shape[0], hidden_trained_NH is not None
    floats, ints = new_packed(hidden_base_NH, n, spec, pair)
    stats = unpack(floats, ints, n, spec, pair)
    step = max(1, BLOCK_LOGITS // head_base.weight_VH.shape[0])
    for i in range(0, n, step):
        rows = slice(i, min(n, i + step))
        a_NV = _logits(hidden_base_NH[rows], head_base)
        b_NV = (
            None
            if hidden_trained_NH is None or head_trained is None
            else _logits(hidden_trained_NH[rows], head_trained)
        )
        packed = reference.probe_stats_packed(a_NV, b_NV, token_N[rows], spec)
        put_rows(stats, rows, unpack(*packed, a_NV.shape[0], spec, pair))
    return floats, ints


def _logits(hidden_NH: Tensor, head: LmHead) -> Tensor:
    with torch.autocast(hidden_NH.device.type, enabled=False):  # the definition is not rounded to 16 bits
        return head.finish_(hidden_NH.double() @ head.weight_VH.double().T)
