"""What a study found, as its page is made of it."""

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
    """decoding and loss, in words"""
    selection: dict[str, Any]
    """the distributions of the traces `sampled`, `filtered` and `selected` for training"""
    metrics: Sequence[Mapping[str, Any]]
    """a line a step"""
    probe: Path
    """run directory"""

    @property
    def label(self) -> str:
        return f"{self.arm}-{self.seed}"


@dataclass(frozen=True)
class Study:
    """All that the page tells. results: of the evaluation. attribution: with `panels` by arm."""

    name: str
    control: str
    trainings: Sequence[Training]
    results: dict[str, Any]
    attribution: dict[str, Any]
    panels: dict[str, dict[str, Any]]
    settings: dict[str, Any]

    @property
    def arms(self) -> list[str]:
        return list(dict.fromkeys(one.arm for one in self.trainings))
