"""From hidden states of two models to the table of positions.

Shape legend: N rows, S scored positions of a trace, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ..chunked_forward import Way, hidden_states
from ..config import ProbeConfig, sampling_params
from ..kernels import LmHead, ProbeSpec, SamplingParams, linear_probe_stats
from ..models import LanguageModel
from .plan import Scored
from .table import assembled, gather
from .token_classes import TokenClasses

# Rows of one call of the kernels: fewer waste a pass over lm_head, more only take memory.
ROWS = 1024

Rows = tuple[Tensor, Tensor, Tensor]  # hidden states [N, H] of a and of b, the tokens [N] they predict


@dataclass(frozen=True)
class Failure:
    """A trace that a model failed on, and why."""

    reason: str


def forward(model: LanguageModel, way: Way, batch: Sequence[Scored], chunk_tokens: int) -> Sequence[Tensor | Failure]:
    """The hidden states [S, H] of the scored positions of each trace of a batch, or why there are none.

    Where a batch fails, its traces go one by one: one that is at fault, or that alone fits into memory, is not held
    against the others.
    """
    try:
        return hidden_states(model, [one.read_ids for one in batch], [one.rows for one in batch], chunk_tokens, way)
    except Exception as error:  # whatever a model's code may raise, out of memory first
        if len(batch) == 1:
            said = " ".join(str(error).split())[:300]
            return [Failure(f"{model.path}: {type(error).__name__}: {said}")]
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return [found for one in batch for found in forward(model, way, [one], chunk_tokens)]


@dataclass(frozen=True)
class Measure:
    """Two heads and what to measure with them."""

    head_a: LmHead
    head_b: LmHead
    spec: ProbeSpec
    config: ProbeConfig
    classes: TokenClasses

    @staticmethod
    def of(head_a: LmHead, head_b: LmHead, classes: TokenClasses, config: ProbeConfig) -> Measure:
        spec = ProbeSpec(
            top_logprobs=config.top,
            eval_sampling=_decoding(config.decoding),
            train_sampling=_decoding(config.train),
            lse_temperatures=config.temperatures,
            token_class=classes.of_token,
            n_classes=len(classes.names),
        )
        return Measure(head_a, head_b, spec, config, classes)

    def table(self, scored: Iterable[tuple[Scored, Tensor, Tensor]]) -> pa.Table:
        """A row a position, of traces with their hidden states under a and under b, trace by trace."""
        done: list[Scored] = []

        def rows() -> Iterator[Rows]:
            for one, hidden_a_SH, hidden_b_SH in scored:
                done.append(one)
                token_S = torch.from_numpy(one.completion_ids[one.positions].astype(np.int64))
                yield hidden_a_SH, hidden_b_SH, token_S.to(hidden_a_SH.device)

        stats = (
            linear_probe_stats(a_NH, self.head_a, b_NH, self.head_b, token_N, self.spec)
            for a_NH, b_NH, token_N in self._or_nothing(_blocks(rows()))
        )
        columns = gather(stats)  # first: it fills `done`
        return assembled(done, columns, self.classes, self.config.classes)

    def _or_nothing(self, blocks: Iterator[Rows]) -> Iterator[Rows]:
        """The blocks, or an empty one: a part whose traces all failed still has the columns."""
        block = next(blocks, None)
        if block is None:
            a_VH, b_VH = self.head_a.weight_VH, self.head_b.weight_VH
            block = a_VH[:0], b_VH[:0], torch.empty(0, dtype=torch.int64, device=a_VH.device)
        yield block
        yield from blocks


def _decoding(setting: sampling_params.SamplingParams) -> SamplingParams:
    return SamplingParams(setting.temperature, setting.top_k, setting.top_p)


def _blocks(traces: Iterable[Rows]) -> Iterator[Rows]:
    """The rows of all traces in blocks of `ROWS`, the last one shorter; a long trace is cut without being copied."""
    waiting: list[Rows] = []
    missing = ROWS
    for a, b, token in traces:
        start = 0
        while start < len(token):
            stop = min(len(token), start + missing)
            waiting.append((a[start:stop], b[start:stop], token[start:stop]))
            missing -= stop - start
            start = stop
            if not missing:
                yield _join(waiting)
                waiting, missing = [], ROWS
    if waiting:
        yield _join(waiting)


def _join(pieces: list[Rows]) -> Rows:
    if len(pieces) == 1:
        return pieces[0]
    a, b, token = zip(*pieces, strict=True)
    return torch.cat(a), torch.cat(b), torch.cat(token)
