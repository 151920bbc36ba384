"""The results of a study, as its page needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Training:
    """One training of an arm."""

    arm: str
    seed: int
    learns_from: str
    """sampling parameters and loss, as text"""
    selection: dict[str, Any]
    """the distributions of the traces `sampled`, `filtered` and `selected` for training"""
    metrics: Sequence[Mapping[str, Any]]
    """one entry per step"""
    probe: Path
    """run directory"""

    @property
    def label(self) -> str:
        return f"{self.arm}-{self.seed}"


@dataclass(frozen=True)
class Study:
    """All that the page shows. results: results.json. attribution: attribution.json. decoding_curves: by arm."""

    name: str
    control: str
    trainings: Sequence[Training]
    results: dict[str, Any]
    attribution: dict[str, Any]
    decoding_curves: dict[str, dict[str, Any]]
    settings: dict[str, Any]

    @property
    def arms(self) -> list[str]:
        return list(dict.fromkeys(training.arm for training in self.trainings))
