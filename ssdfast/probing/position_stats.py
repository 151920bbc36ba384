"""From hidden states of two models to the table of positions.

Shape legend: N rows, S scored positions of a trace, H hidden size, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from .. import config as settings
from ..chunked_forward import ReadingStrategy, hidden_states
from ..config import ProbeConfig
from ..kernels import LmHead, ProbeSpec, SamplingParams, linear_probe_stats
from ..messages import one_line
from ..models import LanguageModel
from .plan import LoadedTrace
from .table import gather, make_table
from .token_classes import TokenClasses

# Rows of one call of the kernels: fewer waste a read of lm_head, more only take memory.
ROWS = 1024

# Hidden states [N, H] of baseline and trained model, None without one, and the tokens [N] that they predict.
Rows = tuple[Tensor, Tensor | None, Tensor]
ScoredTrace = tuple[LoadedTrace, Tensor, Tensor | None]  # with its hidden states [S, H] under both models


@dataclass(frozen=True)
class Failure:
    """A trace that a model failed on, and why."""

    reason: str


def forward(
    model: LanguageModel, way: ReadingStrategy, batch: Sequence[LoadedTrace], chunk_tokens: int
) -> Sequence[Tensor | Failure]:
    """The hidden states [S, H] of the scored positions of each trace of a batch, or why there are none.

    Where a batch fails, its traces are run one by one, so that a failure costs only the trace that causes it.
    """
    try:
        ids, rows = [trace.read_ids for trace in batch], [trace.rows for trace in batch]
        return hidden_states(model, ids, rows, chunk_tokens, way)
    except Exception as error:  # whatever a model's code may raise, out of memory first
        if len(batch) == 1:
            return [Failure(f"{model.path}: {type(error).__name__}: {one_line(error, 300)}")]
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return [result for trace in batch for result in forward(model, way, [trace], chunk_tokens)]


def make_spec(classes: TokenClasses, config: ProbeConfig) -> ProbeSpec:
    """What is measured at each position. Raises ValueError for settings that the kernels reject."""
    return ProbeSpec(
        top_logprobs=config.top_logprobs,
        eval_sampling=_kernel_params(config.eval_sampling),
        train_sampling=_kernel_params(config.train_sampling),
        lse_temperatures=config.lse_temperatures,
        token_class=classes.of_token,
        n_classes=len(classes.names),
    )


@dataclass(frozen=True)
class TableBuilder:
    """Makes tables from hidden states: two heads, or the baseline's alone, and what to measure with them."""

    base_head: LmHead
    trained_head: LmHead | None
    spec: ProbeSpec
    config: ProbeConfig
    classes: TokenClasses

    @staticmethod
    def from_heads(
        base_head: LmHead, trained_head: LmHead | None, classes: TokenClasses, config: ProbeConfig
    ) -> TableBuilder:
        """The heads may have more rows than there are classes of tokens; they are compared over those."""
        base, trained = (head and _first_rows(head, len(classes.of_token)) for head in (base_head, trained_head))
        assert base
        return TableBuilder(base, trained, make_spec(classes, config), config, classes)

    def build(self, traces: Iterable[ScoredTrace]) -> pa.Table:
        """One row per scored position, trace by trace."""
        consumed: list[LoadedTrace] = []

        def rows() -> Iterator[Rows]:
            for trace, base_SH, trained_SH in traces:
                consumed.append(trace)
                token_S = torch.from_numpy(trace.completion_ids[trace.positions].astype(np.int64))
                yield base_SH, trained_SH, token_S.to(base_SH.device)

        stats = (
            linear_probe_stats(base_NH, self.base_head, trained_NH, self.trained_head, token_N, self.spec)
            for base_NH, trained_NH, token_N in self._at_least_one(_blocks(rows()))
        )
        columns = gather(stats)  # first: it fills `consumed`
        return make_table(consumed, columns, self.classes, self.config.position_classes)

    def _at_least_one(self, blocks: Iterator[Rows]) -> Iterator[Rows]:
        """The blocks, or an empty one: a shard whose traces all failed still has the columns."""
        block = next(blocks, None)
        if block is None:
            base_VH, trained = self.base_head.weight_VH, self.trained_head
            trained_0H = None if trained is None else trained.weight_VH[:0]
            block = base_VH[:0], trained_0H, torch.empty(0, dtype=torch.int64, device=base_VH.device)
        yield block
        yield from blocks


def _first_rows(head: LmHead, v: int) -> LmHead:
    bias_V = None if head.bias_V is None else head.bias_V[:v]
    return dataclasses.replace(head, weight_VH=head.weight_VH[:v], bias_V=bias_V)


def _kernel_params(params: settings.SamplingParams) -> SamplingParams:
    return SamplingParams(params.temperature, params.top_k, params.top_p)


def _blocks(traces: Iterable[Rows]) -> Iterator[Rows]:
    """The rows of all traces in blocks of `ROWS`, the last one shorter; a long trace is split without a copy."""
    pieces: list[Rows] = []
    missing = ROWS
    for base, trained, token in traces:
        start = 0
        while start < len(token):
            stop = min(len(token), start + missing)
            part = slice(start, stop)
            pieces.append((base[part], None if trained is None else trained[part], token[part]))
            missing -= stop - start
            start = stop
            if not missing:
                yield _concat(pieces)
                pieces, missing = [], ROWS
    if pieces:
        yield _concat(pieces)


def _concat(pieces: list[Rows]) -> Rows:
    if len(pieces) == 1:
        return pieces[0]
    base, trained, token = zip(*pieces, strict=True)
    return torch.cat(base), None if trained[0] is None else torch.cat(trained), torch.cat(token)
