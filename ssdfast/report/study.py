"""The results of a study, as its page needs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..schemas import AttributionResults, DecodingCurves, EvaluationResults, StepMetrics, TraceSelection


@dataclass(frozen=True)
class Training:
    """One training of an arm."""

    arm: str
    seed: int
    learns_from: str
    """sampling parameters and loss, as text"""
    selection: TraceSelection
    """the distributions of the traces `sampled`, `filtered` and `selected` for training"""
    metrics: Sequence[StepMetrics]
    """one entry per step"""
    probe: Path
    """run directory"""

    @property
    def label(self) -> str:
        return f"{self.arm}-{self.seed}"


@dataclass(frozen=True)
class Study:
    """All that the page shows."""

    name: str
    control: str
    trainings: Sequence[Training]
    results: EvaluationResults
    attribution: AttributionResults
    decoding_curves: DecodingCurves
    settings: dict[str, Any]

    @property
    def arms(self) -> list[str]:
        return list(dict.fromkeys(training.arm for training in self.trainings))
