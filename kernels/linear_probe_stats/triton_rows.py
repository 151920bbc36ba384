"""Rows that need their logits after all: they go through ``probe_stats``, a few at a time.

Shape legend: N rows, V vocabulary, H hidden size, R of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..probe_stats import triton as logits_backend
from ..probe_stats.schema import ProbeSpec, ProbeStats, put_rows, unpack
from .head import LmHead
from .logits import lm_head_logits

LOGITS_BYTES = 64 << 20  # of all models together


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

    def logits(self) -> Tensor:
        """float32 [N, V], of few rows or of a small head."""
        return lm_head_logits(self.hidden_NH, self.head)

    def sampled(self, every: int) -> Model:
        """The same model with one of ``every`` entries of the vocabulary."""
        head = self.head
        bias_V = None if head.bias_V is None else head.bias_V[::every]
        return Model(self.hidden_NH, LmHead(head.weight_VH[::every], bias_V, head.scale, head.softcap))

    def rows(self, rows: slice | Tensor) -> Model:
        return Model(self.hidden_NH[rows], self.head)


def from_logits(models: list[Model], token_N: Tensor, spec: ProbeSpec, rows_R: Tensor, out: ProbeStats) -> None:
    """Every column of some rows, from their logits."""
    step = max(1, LOGITS_BYTES // (4 * models[0].vocabulary * len(models)))
    for chunk_R in rows_R.split(step):
        logits = [model.rows(chunk_R).logits() for model in models]
        packed = logits_backend.probe_stats_packed(
            logits[0], logits[1] if len(models) == 2 else None, token_N[chunk_R], spec
        )
        put_rows(out, chunk_R, unpack(*packed, chunk_R.shape[0], spec, len(models) == 2))


def long_nuclei(model: Model, token_N: Tensor, spec: ProbeSpec, rows_R: Tensor, nucleus_size_N: Tensor) -> None:
    """Replaces the -1 of nuclei beyond the top list."""
    nucleus_spec = ProbeSpec(spec.top_logprobs, spec.eval_sampling, spec.train_sampling, lse_temperatures=())
    step = max(1, LOGITS_BYTES // (4 * model.vocabulary))
    for chunk_R in rows_R.split(step):
        packed = logits_backend.probe_stats_packed(model.rows(chunk_R).logits(), None, token_N[chunk_R], nucleus_spec)
        nucleus_size_N[chunk_R] = unpack(*packed, chunk_R.shape[0], nucleus_spec, False).base.nucleus_size
