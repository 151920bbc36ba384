"""What a probe will take, from a short trial of it: ``ssdfast probe --estimate``.

A forward pass takes time in proportion to its tokens and to the pairs of tokens that attention looks at, the
statistics and the table in proportion to the positions. The plan's longest batch, cut to a few chunks, and its shortest
one give the rates; memory is that of the trial, and what a longer trace and a fuller part add to it.

Shape legend: R trials, Q kinds of work (tokens, pairs of tokens).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from .. import memory_usage
from ..config import ExecutionConfig, ProbeConfig
from ..run_dir import RunError
from ..sharded_table import encoded
from .model_loading import Loaded, load
from .plan import Item, Plan, Scored
from .position_stats import Failure, Measure, forward
from .shard_worker import prepare

_CHUNKS = 3  # of the longest trace
_POSITIONS = 1024  # of each trial, whose statistics are timed


@dataclass(frozen=True)
class Estimate:
    """Of the whole table, made by one process."""

    traces: int
    positions: int
    tokens: int
    """that each model reads"""
    parts: int
    table_bytes: int
    seconds_forward: float
    seconds_statistics: float
    peak_bytes: int
    """weights included: on the GPU where there is one, else of the process"""
    free_bytes: int
    both: bool
    """models in memory together"""

    def __str__(self) -> str:
        seconds = self.seconds_forward + self.seconds_statistics
        share = self.seconds_statistics / seconds
        mode = "both models stay" if self.both else "one model at a time, hidden states on disk in between"
        return "\n".join(
            [
                f"traces     {self.traces:,}, of which each model reads {self.tokens:,} tokens",
                f"positions  {self.positions:,} in {self.parts:,} parts",
                f"disk       {_size(self.table_bytes)}: {self.table_bytes / self.positions:.0f} bytes a position",
                f"memory     {_size(self.peak_bytes)} of {_size(self.free_bytes)} free: {mode}",
                f"time       {_duration(seconds)} for one such process: {share:.0%} of it statistics",
            ]
        )


def estimate(config: ProbeConfig, execution: ExecutionConfig) -> Estimate:
    """Lay out the work, run a little of it, and scale. Nothing is written.

    Raises ValueError as `probe`, RunError where a model fails on the trial.
    """
    prober = prepare(config, execution, Path())
    plan, free = prober.plan, memory_usage.free_bytes()
    trials = [_trial(plan, batch, config.batch_tokens) for batch in (plan.parts[0][0], plan.parts[-1][-1])]
    both = prober.both
    memory_usage.start_peak()
    a = load(prober.a, config.dtype)
    seconds_a, hidden_a = _passes(a, trials, config.batch_tokens)
    b = load(prober.b, config.dtype)
    seconds_b, hidden_b = _passes(b, trials, config.batch_tokens)
    measure = Measure.of(a.model.head, b.model.head, prober.classes, config)
    some = [one for found in zip(trials, hidden_a, hidden_b, strict=True) for one in _some(*found)]
    measure.table(some)  # once for what the first call does once
    start = time.perf_counter()
    table = measure.table(some)
    seconds_a_position = (time.perf_counter() - start) / len(table)
    work_RQ = np.array([_work([one.item for one in trial]) for trial in trials])
    rates_Q = _rates(work_RQ, np.array(seconds_a) + np.array(seconds_b))
    work_Q = np.sum([_work(batch) for part in plan.parts for batch in part], 0)
    every = range(len(plan.parts))
    positions = sum(map(plan.positions, every))
    fullest = max(map(plan.positions, every))
    longer = plan.parts[0][0][0].reach - trials[0][0].item.reach
    return Estimate(
        traces=sum(1 for _ in plan.items),
        positions=positions,
        tokens=sum(map(plan.tokens, every)),
        parts=len(plan.parts),
        table_bytes=_table_bytes(table, positions, len(plan.parts)),
        seconds_forward=float(rates_Q @ work_Q),
        seconds_statistics=seconds_a_position * positions,
        peak_bytes=memory_usage.peak_bytes()
        + longer * max(_bytes_a_token(model, config) for model in (a, b))
        + (0 if torch.cuda.is_available() else 2 * table.nbytes // len(table) * fullest),
        free_bytes=free,
        both=both,
    )


def _trial(plan: Plan, batch: Sequence[Item], batch_tokens: int) -> list[Scored]:
    """A batch in memory, its traces no longer than a few chunks."""
    scored = [plan.trace(item) for item in batch]
    most = max(_CHUNKS * batch_tokens, scored[0].item.prompt + 1)
    return [_cut(one, most) if one.item.reach > most else one for one in scored]


def _cut(one: Scored, reach: int) -> Scored:
    positions = one.positions[one.positions <= reach - one.item.prompt]
    if not len(positions):
        positions = np.array([reach - one.item.prompt], np.int32)
    return one._replace(item=one.item._replace(reach=reach, positions=len(positions)), positions=positions)


def _some(
    trial: list[Scored], hidden_a: Sequence[Tensor], hidden_b: Sequence[Tensor]
) -> Iterator[tuple[Scored, Tensor, Tensor]]:
    """The first positions of a trial, with their hidden states."""
    left = _POSITIONS
    for one, a_SH, b_SH in zip(trial, hidden_a, hidden_b, strict=True):
        if left > 0:
            yield one._replace(positions=one.positions[:left]), a_SH[:left], b_SH[:left]
        left -= len(one.positions)


def _table_bytes(table: pa.Table, positions: int, parts: int) -> int:
    """On disk: what a position takes, and what a file takes beside them."""
    whole, half = (len(encoded(table.slice(0, rows))) for rows in (len(table), len(table) // 2))
    a_position = (whole - half) / (len(table) - len(table) // 2)
    return int(a_position * positions + (whole - a_position * len(table)) * parts)


def _passes(loaded: Loaded, trials: list[list[Scored]], batch_tokens: int) -> tuple[list[float], list[list[Tensor]]]:
    """Seconds and hidden states of each trial; the last one goes first, to warm up, and again."""
    _timed(loaded, trials[-1], batch_tokens)
    timed = [_timed(loaded, trial, batch_tokens) for trial in trials]
    return [seconds for seconds, _ in timed], [hidden for _, hidden in timed]


def _timed(loaded: Loaded, trial: list[Scored], batch_tokens: int) -> tuple[float, list[Tensor]]:
    """Seconds of a batch's forward pass, and the hidden states of its traces."""
    start = time.perf_counter()
    found = forward(loaded.model, loaded.way, trial, batch_tokens)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    for one in found:
        if isinstance(one, Failure):
            raise RunError(f"the trial failed: {one.reason}")
    return seconds, [one for one in found if isinstance(one, Tensor)]


def _work(batch: Sequence[Item]) -> tuple[float, float]:
    """Tokens, padding included, and pairs of a token and one before it."""
    tokens = len(batch) * batch[0].reach
    return tokens, tokens * batch[0].reach / 2


def _rates(work_RQ: np.ndarray, seconds_R: np.ndarray) -> np.ndarray:
    """Seconds [Q] for a token and for a pair. Where the trials cannot tell them apart, tokens take it all."""
    (long_tokens, long_pairs), (short_tokens, short_pairs) = work_RQ
    longer = long_pairs / long_tokens - short_pairs / short_tokens
    slower = seconds_R[0] / long_tokens - seconds_R[1] / short_tokens
    if longer <= 0 or slower <= 0:
        return np.array([seconds_R.sum() / work_RQ[:, 0].sum(), 0.0])
    pair = min(slower / longer, seconds_R[0] / long_pairs)
    return np.array([max(0.0, seconds_R[0] / long_tokens - pair * long_pairs / long_tokens), pair])


def _bytes_a_token(loaded: Loaded, config: ProbeConfig) -> int:
    """What one more token of a trace keeps in memory while a model reads it."""
    settings = loaded.model.model.config.get_text_config()
    heads = getattr(settings, "num_key_value_heads", None) or settings.num_attention_heads
    size = getattr(settings, "head_dim", None) or settings.hidden_size // settings.num_attention_heads
    layers = {"layers": 1, "cache": settings.num_hidden_layers, "whole": 1}[loaded.way]
    # Keys and values are copied as they grow; hidden states are in flight and kept, for a and for b.
    return getattr(torch, config.dtype).itemsize * (4 * layers * heads * size + 3 * settings.hidden_size)


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.4g} TB"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
