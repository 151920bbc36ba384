"""The resources that a probe needs, from a short trial of it: ``ssdfast probe --estimate``.

The time of a forward pass grows with its tokens and with the pairs of tokens that attention compares, that of the
statistics and the table with the positions. The rates come from the plan's longest batch, cut to a few chunks, and its
shortest one. Memory is that of the trial, plus what a longer trace and a fuller shard add.

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
from ..config import ExecutionConfig, ManyProbesConfig, ProbeConfig
from ..number_format import format_bytes, format_duration
from ..run_dir import RunError
from ..sharded_table import encode
from .model_loading import load
from .plan import LoadedTrace, Plan, TraceItem
from .position_stats import Failure, ScoredTrace, TableBuilder, forward
from .reader import Reader
from .run import Run
from .shard_worker import prepare
from .table import of_baseline, of_trained

_CHUNKS = 3  # of the longest trace
_POSITIONS = 1024  # of each trial, whose statistics are timed


@dataclass(frozen=True)
class Estimate:
    """Of all tables, made by one process."""

    models: int
    """trained models"""
    traces: int
    positions: int
    tokens: int
    """that each model reads"""
    shards: int
    table_bytes: int
    seconds_forward: float
    seconds_statistics: float
    peak_bytes: int
    """weights included: on the GPU where there is one, else of the process"""
    free_bytes: int
    loads_both: bool
    """whether both models are in memory together"""

    def __str__(self) -> str:
        seconds = self.seconds_forward + self.seconds_statistics
        fraction = self.seconds_statistics / seconds
        row_bytes = self.table_bytes / self.positions
        mode = "both models in memory" if self.loads_both else "one model at a time, hidden states on disk in between"
        models = [f"models     {self.models} beside one pass of the baseline"] if self.models > 1 else []
        return "\n".join(
            [
                *models,
                f"traces     {self.traces:,}, of which each model reads {self.tokens:,} tokens",
                f"positions  {self.positions:,} in {self.shards:,} shards",
                f"disk       {format_bytes(self.table_bytes)}: {row_bytes:.0f} bytes per position",
                f"memory     {format_bytes(self.peak_bytes)} of {format_bytes(self.free_bytes)} free: {mode}",
                f"time       {format_duration(seconds)} for one process: {fraction:.0%} of it statistics",
            ]
        )


def estimate(config: ProbeConfig | ManyProbesConfig, execution: ExecutionConfig) -> Estimate:
    """Plan the work, run a small part of it, and scale. Writes nothing.

    Of several trained models the first is tried, and the others count as much.
    Raises ValueError as `probe`, RunError where a model fails on the trial.
    """
    run = Run.of(config, Path(), execution)
    first, models, is_many = run.targets[0], len(run.targets), run.is_many
    config = first.config
    prober = prepare(run.targets, execution, Path())
    plan, free = prober.plan, memory_usage.free_bytes()
    trials = [_trial(plan, batch, config.max_batch_tokens) for batch in (plan.shards[0][0], plan.shards[-1][-1])]
    loads_both = prober.loads_both
    memory_usage.start_peak()
    base = load(prober.baseline, config.dtype)
    base_seconds, base_hidden = _run_trials(base, trials, config.max_batch_tokens)
    trained = load(first.trained, config.dtype)
    trained_seconds, trained_hidden = _run_trials(trained, trials, config.max_batch_tokens)
    builder = TableBuilder.from_heads(base.model.head, trained.model.head, prober.classes, config)
    sample = [
        trace
        for trial, base_states, trained_states in zip(trials, base_hidden, trained_hidden, strict=True)
        for trace in _first_positions(trial, base_states, trained_states)
    ]
    builder.build(sample)  # warm-up
    start = time.perf_counter()
    table = builder.build(sample)
    seconds_per_position = (time.perf_counter() - start) / len(table)
    tables = [(of_baseline(table), 1), (of_trained(table), models)] if is_many else [(table, 1)]
    work_RQ = np.array([_work([trace.item for trace in trial]) for trial in trials])
    rates_Q = _rates(work_RQ, np.array(base_seconds) + models * np.array(trained_seconds))
    work_Q = np.sum([_work(batch) for shard in plan.shards for batch in shard], 0)
    indices = range(len(plan.shards))
    positions = sum(map(plan.num_positions, indices))
    most_positions = max(map(plan.num_positions, indices))
    untried_tokens = plan.shards[0][0][0].read_tokens - trials[0][0].item.read_tokens
    return Estimate(
        models=models,
        traces=sum(1 for _ in plan.items),
        positions=positions,
        tokens=sum(map(plan.tokens, indices)),
        shards=len(plan.shards),
        table_bytes=sum(count * _table_bytes(part, positions, len(plan.shards)) for part, count in tables),
        seconds_forward=float(rates_Q @ work_Q),
        seconds_statistics=models * seconds_per_position * positions,
        peak_bytes=memory_usage.peak_bytes()
        + untried_tokens * max(_bytes_per_token(model, config) for model in (base, trained))
        + (0 if torch.cuda.is_available() else 2 * table.nbytes // len(table) * most_positions),
        free_bytes=free,
        loads_both=loads_both,
    )


def _trial(plan: Plan, batch: Sequence[TraceItem], max_batch_tokens: int) -> list[LoadedTrace]:
    """A batch in memory, its traces cut to a few chunks."""
    traces = [plan.load(item) for item in batch]
    limit = max(_CHUNKS * max_batch_tokens, traces[0].item.prompt_tokens + 1)
    return [_cut(trace, limit) if trace.item.read_tokens > limit else trace for trace in traces]


def _cut(trace: LoadedTrace, read_tokens: int) -> LoadedTrace:
    last = read_tokens - trace.item.prompt_tokens
    positions = trace.positions[trace.positions <= last]
    if not len(positions):
        positions = np.array([last], np.int32)
    item = trace.item._replace(read_tokens=read_tokens, num_positions=len(positions))
    return trace._replace(item=item, positions=positions)


def _first_positions(
    trial: list[LoadedTrace], base_states: Sequence[Tensor], trained_states: Sequence[Tensor]
) -> Iterator[ScoredTrace]:
    """The first positions of a trial, with their hidden states."""
    left = _POSITIONS
    for trace, base_SH, trained_SH in zip(trial, base_states, trained_states, strict=True):
        if left > 0:
            yield trace._replace(positions=trace.positions[:left]), base_SH[:left], trained_SH[:left]
        left -= len(trace.positions)


def _table_bytes(table: pa.Table, positions: int, shards: int) -> int:
    """On disk: the bytes of a position, and the overhead of a file."""
    whole, half = (len(encode(table.slice(0, rows))) for rows in (len(table), len(table) // 2))
    bytes_per_position = (whole - half) / (len(table) - len(table) // 2)
    return int(bytes_per_position * positions + (whole - bytes_per_position * len(table)) * shards)


def _run_trials(
    loaded: Reader, trials: list[list[LoadedTrace]], max_batch_tokens: int
) -> tuple[list[float], list[list[Tensor]]]:
    """Seconds and hidden states of each trial; the last one also runs first, as a warm-up."""
    _run_trial(loaded, trials[-1], max_batch_tokens)
    results = [_run_trial(loaded, trial, max_batch_tokens) for trial in trials]
    return [seconds for seconds, _ in results], [hidden for _, hidden in results]


def _run_trial(loaded: Reader, trial: list[LoadedTrace], max_batch_tokens: int) -> tuple[float, list[Tensor]]:
    """Seconds of a batch's forward pass, and the hidden states of its traces."""
    start = time.perf_counter()
    results = forward(loaded.model, loaded.way, trial, max_batch_tokens)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    for result in results:
        if isinstance(result, Failure):
            raise RunError(f"the trial failed: {result.reason}")
    return seconds, [result for result in results if isinstance(result, Tensor)]


def _work(batch: Sequence[TraceItem]) -> tuple[float, float]:
    """Tokens, padding included, and pairs of a token and one before it."""
    tokens = len(batch) * batch[0].read_tokens
    return tokens, tokens * batch[0].read_tokens / 2


def _rates(work_RQ: np.ndarray, seconds_R: np.ndarray) -> np.ndarray:
    """Seconds [Q] per token and per pair. Where the trials cannot separate them, all time counts for the tokens."""
    (long_tokens, long_pairs), (short_tokens, short_pairs) = work_RQ
    longer = long_pairs / long_tokens - short_pairs / short_tokens
    slower = seconds_R[0] / long_tokens - seconds_R[1] / short_tokens
    if longer <= 0 or slower <= 0:
        return np.array([seconds_R.sum() / work_RQ[:, 0].sum(), 0.0])
    pair = min(slower / longer, seconds_R[0] / long_pairs)
    return np.array([max(0.0, seconds_R[0] / long_tokens - pair * long_pairs / long_tokens), pair])


def _bytes_per_token(loaded: Reader, config: ProbeConfig) -> int:
    """Memory that one more token of a trace takes while a model reads it."""
    settings = loaded.model.model.config.get_text_config()
    heads = getattr(settings, "num_key_value_heads", None) or settings.num_attention_heads
    size = getattr(settings, "head_dim", None) or settings.hidden_size // settings.num_attention_heads
    layers = {"layers": 1, "cache": settings.num_hidden_layers, "whole": 1}[loaded.way.chunks]
    # Keys and values are copied as they grow; hidden states are in flight, and stored for both models.
    return getattr(torch, config.dtype).itemsize * (4 * layers * heads * size + 3 * settings.hidden_size)
