"""The files of training: filters.json, a line of metrics.jsonl, and selection.json of a study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..config import EngineSamplingParams
from .base import JsonFile, Record


class TraceDistribution(Record):
    """How many traces there are, and how they are distributed."""

    traces: int
    completion_tokens: int
    by_length_up_to: dict[str, int]
    """By the smallest power of two that a completion's tokens do not exceed."""
    by_finish_reason: dict[str, int]
    by_difficulty: dict[str, int]
    by_correct: dict[str, int]
    """By ``yes``, ``no`` and ``unknown``."""


class DescribedTraces(TraceDistribution):
    """With two more numbers, for a study."""

    median_length: float | None
    """In completion tokens."""
    correct_fraction: float | None
    """Of the graded traces."""


class FilterStep(Record):
    """What one filter removed."""

    filter: str
    traces_removed: int
    traces_truncated: int
    completion_tokens_removed: int
    removed: TraceDistribution


class TrainingRecord(JsonFile):
    """filters.json: the traces that a model was trained on, and how they were sampled."""

    before: TraceDistribution
    after: TraceDistribution
    filters: list[FilterStep]
    train_sampling: list[EngineSamplingParams] | None = None
    """The distinct sampling parameters of the traces, empty where a trace has none."""


class TraceSelection(JsonFile):
    """selection.json: the traces of an arm of a study."""

    sampled: DescribedTraces
    filtered: DescribedTraces
    selected: DescribedTraces


class StepMetrics(Record):
    """A line of metrics.jsonl; None where a value was not finite."""

    step: int
    loss: float | None
    """In nats per completion token."""
    perplexity: float | None
    grad_norm: float | None
    """Before clipping."""
    learning_rate: float | None
    frac_weights_changed: float | None
    median_change_ulps: float | None
    tokens: int
    """Completion tokens of the step."""
    tokens_per_second: float | None
    peak_memory_gb: float | None
    grad_noise_var: float | None = None
    grad_signal_sq: float | None = None
    mfu: float | None = None
    """Model FLOPs utilization, a fraction, on a known GPU."""

    @property
    def noise_ratio(self) -> float | None:
        """Gradient noise over signal; None where the signal is not positive or was not measured."""
        noise, signal = self.grad_noise_var, self.grad_signal_sq
        return noise / signal if noise is not None and signal is not None and signal > 0 else None


def read_metrics(path: Path) -> list[StepMetrics]:
    """The lines of metrics.jsonl, one per step."""
    lines: list[Any] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [StepMetrics.model_validate(line) for line in lines]
