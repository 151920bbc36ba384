"""An arm of an evaluation: one checkpoint at one decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..config import EngineSamplingParams


class Setting(NamedTuple):
    """A decoding as far as it is known; None where a file of completions does not say."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    def __str__(self) -> str:
        said = zip(("T", "k", "p", "min-p"), self, strict=True)
        known = [(name, value) for name, value in said if value is not None and (name, value) != ("min-p", 0)]
        return " ".join(f"{name}={_short(value)}" for name, value in known)


def _short(value: float) -> str:
    """In few digits where they are enough: settings that differ have different names."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


@dataclass(frozen=True)
class Arm:
    checkpoint: str
    """its label"""
    setting: Setting

    def __str__(self) -> str:
        return f"{self.checkpoint} {self.setting}".strip()

    @property
    def directory(self) -> str:
        """Where its traces are, within those of a run."""
        return f"{self.checkpoint}/" + (str(self.setting).replace(" ", "-").replace("=", "") or "samples")


def setting_of(decoding: EngineSamplingParams) -> Setting:
    return Setting(decoding.temperature, decoding.top_k, decoding.top_p, decoding.min_p)
