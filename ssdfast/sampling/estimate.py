"""What a run may take: its traces counted, a few of them sampled for the speed, and the rest scaled.

How long completions will be is the model's secret. Where the run has begun, its own finished traces tell; else the
estimate is the most that the settings allow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ..config import SampleConfig, SampleExecution
from ..traces import UNFINISHED
from .requests import Plan, make_engine, make_plan
from .run_stats import summarize

_TRIAL_TRACES = 64
_TRIAL_TOKENS = 32


@dataclass(frozen=True)
class Estimate:
    """Of what a run has left to do."""

    problems: int
    traces: int
    done: int
    prompt_tokens: int
    """of one trace, on average"""
    completion_tokens: float
    """of one trace: the mean of those that are finished, or the most that is allowed"""
    known: bool
    """completion_tokens is such a mean"""
    tokens_a_second: float
    price: float
    """of an hour, 0 for none"""

    @property
    def tokens(self) -> float:
        return (self.traces - self.done) * self.completion_tokens

    def __str__(self) -> str:
        hours = self.tokens / self.tokens_a_second / 3600
        how = "as the finished ones" if self.known else "if every trace runs to its limit"
        lines = [
            f"traces  {self.traces:,} of {self.problems:,} problems, {self.done:,} of them finished",
            f"prompt  {self.prompt_tokens:,} tokens on average",
            f"tokens  {self.tokens:,.0f} to draw: {self.completion_tokens:,.0f} a trace, {how}",
            f"speed   {self.tokens_a_second:,.0f} tokens/s in a short trial with short contexts; long ones are slower",
            f"time    {tqdm.format_interval(3600 * hours)}",
        ]
        return "\n".join([*lines, f"cost    {hours * self.price:,.2f}"] if self.price else lines)


def estimate(config: SampleConfig, execution: SampleExecution, out: Path) -> Estimate:
    """Sample a little of the work. Nothing is written. Raises as `sample` does."""
    return of_plan(make_plan(config), config, execution, [out / "traces"])


def of_plan(plan: Plan, config: SampleConfig, execution: SampleExecution, directories: Sequence[Path]) -> Estimate:
    """Of sampling a plan into each of the directories."""
    found = [summarize(directory) for directory in directories if any(directory.glob("*.parquet"))]
    unfinished = sum(one["finish_reasons"].get(reason, 0) for one in found for reason in UNFINISHED)
    done = sum(one["traces"] for one in found) - unfinished
    mean = sum(one["tokens"] for one in found) / max(1, done)
    most = sum(request.max_new_tokens for request in plan.requests) / len(plan.requests)
    return Estimate(
        problems=len(plan.problems),
        traces=len(plan.requests) * len(directories),
        done=done,
        prompt_tokens=round(sum(len(request.prompt_ids) for request in plan.requests) / len(plan.requests)),
        completion_tokens=mean or most,
        known=bool(mean),
        tokens_a_second=_speed(config, execution, plan),
        price=execution.price_per_hour,
    )


def _speed(config: SampleConfig, execution: SampleExecution, plan: Plan) -> float:
    """Tokens a second of a batch, after a trace that warms the engine up."""
    trial = [
        dataclasses.replace(request, max_new_tokens=min(_TRIAL_TOKENS, request.max_new_tokens))
        for request in plan.requests[:_TRIAL_TRACES]
    ]
    with contextlib.closing(make_engine(config, execution, plan)) as engine:
        list(engine.complete([dataclasses.replace(trial[0], max_new_tokens=1)], lambda tokens: None))
        start = time.perf_counter()
        tokens = sum(len(completion.ids) for completion in engine.complete(trial, lambda tokens: None))
        return tokens / (time.perf_counter() - start)
