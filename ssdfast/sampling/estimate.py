"""An estimate of a sampling run: its traces are counted, a few are sampled to measure the speed, the rest is scaled.

The length of completions is not known before they are sampled. The estimate takes the mean length of the run's finished
traces, or the maximum length where there are none.
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
    """What a run still has to do."""

    problems: int
    traces: int
    finished: int
    prompt_tokens: int
    """The mean length of a prompt."""
    completion_tokens: float
    """The mean length of the finished completions, or the maximum length where there are none."""
    from_finished: bool
    """completion_tokens is the mean of finished completions."""
    tokens_per_second: float
    price_per_hour: float
    """0 for none."""

    @property
    def tokens(self) -> float:
        """The tokens that remain to be sampled."""
        return (self.traces - self.finished) * self.completion_tokens

    def __str__(self) -> str:
        hours = self.tokens / self.tokens_per_second / 3600
        basis = "the mean of the finished ones" if self.from_finished else "the maximum length"
        lines = [
            f"traces  {self.traces:,} of {self.problems:,} problems, {self.finished:,} of them finished",
            f"prompt  {self.prompt_tokens:,} tokens on average",
            f"tokens  {self.tokens:,.0f} to sample: {self.completion_tokens:,.0f} per trace, {basis}",
            f"speed   {self.tokens_per_second:,.0f} tokens/s in a trial with short contexts; long ones are slower",
            f"time    {tqdm.format_interval(3600 * hours)}",
        ]
        cost = [f"cost    {hours * self.price_per_hour:,.2f}"] if self.price_per_hour else []
        return "\n".join([*lines, *cost])


def estimate(config: SampleConfig, execution: SampleExecution, out: Path) -> Estimate:
    """Run a short trial of the work. Nothing is written. Raises as `sample` does."""
    return estimate_plan(make_plan(config), config, execution, [out / "traces"])


def estimate_plan(
    plan: Plan, config: SampleConfig, execution: SampleExecution, directories: Sequence[Path]
) -> Estimate:
    """The estimate of sampling a plan into each of the directories."""
    summaries = [summarize(directory) for directory in directories if any(directory.glob("*.parquet"))]
    unfinished = sum(summary["finish_reasons"].get(reason, 0) for summary in summaries for reason in UNFINISHED)
    finished = sum(summary["traces"] for summary in summaries) - unfinished
    mean_tokens = sum(summary["tokens"] for summary in summaries) / max(1, finished)
    max_tokens = sum(request.max_new_tokens for request in plan.requests) / len(plan.requests)
    return Estimate(
        problems=len(plan.problems),
        traces=len(plan.requests) * len(directories),
        finished=finished,
        prompt_tokens=round(sum(len(request.prompt_ids) for request in plan.requests) / len(plan.requests)),
        completion_tokens=mean_tokens or max_tokens,
        from_finished=bool(mean_tokens),
        tokens_per_second=measure_speed(config, execution, plan),
        price_per_hour=execution.price_per_hour,
    )


def measure_speed(config: SampleConfig, execution: SampleExecution, plan: Plan) -> float:
    """Tokens per second of a batch, after a warm-up trace."""
    trial = [
        dataclasses.replace(request, max_new_tokens=min(_TRIAL_TOKENS, request.max_new_tokens))
        for request in plan.requests[:_TRIAL_TRACES]
    ]
    with contextlib.closing(make_engine(config, execution, plan)) as engine:
        list(engine.complete([dataclasses.replace(trial[0], max_new_tokens=1)], lambda tokens: None))
        start = time.perf_counter()
        tokens = sum(len(completion.ids) for completion in engine.complete(trial, lambda tokens: None))
        return tokens / (time.perf_counter() - start)
