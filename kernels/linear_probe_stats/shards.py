"""``linear_probe_stats`` with the heads in shards on the ranks of a process group (tensor parallelism).

Shape legend: N rows, V_r entries of this rank's shard, H hidden size, B rows of a block.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from ..probe_stats.schema import ProbeSpec, ProbeStats, new_packed, put_rows, unpack
from ..probe_stats.shards import sharded_probe_stats
from .checks import check_models
from .head import LmHead
from .logits import lm_head_logits

LOGITS_BYTES = 48 << 20  # of all models' shards together, on each rank


@torch.no_grad()
def sharded_linear_probe_stats(
    hidden_base_NH: Tensor,
    lm_head_base_VH: Tensor | LmHead,
    hidden_trained_NH: Tensor | None,
    lm_head_trained_VH: Tensor | LmHead | None,
    token_N: Tensor,
    spec: ProbeSpec,
    first_id: int,
    group: dist.ProcessGroup | None = None,
    backend: str | None = None,
) -> ProbeStats:
    """Every rank of ``group`` holds rows first_id .. first_id + V_r of the heads, calls this, and gets every column.

    hidden_base_NH, hidden_trained_NH: the same [N, H] on every rank; heads: [V_r, H], V_r of each rank's own, 0 too,
    bias included. The rest as for ``sharded_probe_stats``, which gets the logits of 48 MB of rows at a time.
    Raises ValueError on every rank, naming the rank with the error.
    """
    head_base = LmHead.from_weight(lm_head_base_VH)
    head_trained = None if lm_head_trained_VH is None else LmHead.from_weight(lm_head_trained_VH)
    step = _agreed_rows(hidden_base_NH, head_base, hidden_trained_NH, head_trained, token_N, group)
    n, pair = token_N.shape[0], hidden_trained_NH is not None
    floats, ints = new_packed(hidden_base_NH, n, spec, pair)
    stats = unpack(floats, ints, n, spec, pair)
    for i in range(0, max(n, 1), step):  # once without rows: the ranks have to agree on the other arguments too
        rows = slice(i, min(n, i + step))
        a_BV = lm_head_logits(hidden_base_NH[rows], head_base)
        b_BV = None
        if hidden_trained_NH is not None and head_trained is not None:
            b_BV = lm_head_logits(hidden_trained_NH[rows], head_trained)
        put_rows(stats, rows, sharded_probe_stats(a_BV, b_BV, token_N[rows], spec, first_id, group, backend))
    return stats


def _agreed_rows(
    hidden_base: Tensor, head_base: LmHead, hidden_trained: Tensor | None, head_trained: LmHead | None, token: Tensor,
    group: dist.ProcessGroup | None,
) -> int:  # fmt: skip
    """Rows per block, the same on every rank. An error on one rank is raised on all."""
    own: str | tuple[int, int]
    try:
        check_models(hidden_base, head_base, hidden_trained, head_trained, token, empty_ok=True)
        if hidden_base.dtype == torch.float64:
            raise ValueError("shards must be bf16, fp16 or fp32, got torch.float64")
        own = token.shape[0], head_base.weight_VH.shape[0] * (1 if hidden_trained is None else 2)
    except ValueError as error:
        own = str(error)
    answers: list[str | tuple[int, int]] = [own] * dist.get_world_size(group)
    dist.all_gather_object(answers, own, group)
    row_logits = 1
    for rank, answer in enumerate(answers):
        if isinstance(answer, str):
            raise ValueError(f"rank {rank}: {answer}")
        if answer[0] != answers[0][0]:
            raise ValueError(f"rank {rank} has {answer[0]} positions and rank 0 has {answers[0][0]}")
        row_logits = max(row_logits, answer[1])
    return max(1, LOGITS_BYTES // (4 * row_logits))
