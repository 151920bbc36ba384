"""A run of an evaluation: one checkpoint at one set of sampling parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..config import EngineSamplingParams


class KnownSamplingParams(NamedTuple):
    """Sampling parameters as far as they are known; None where a file of completions does not say."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    @classmethod
    def from_config(cls, sampling: EngineSamplingParams) -> KnownSamplingParams:
        return cls(sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)

    def __str__(self) -> str:
        pairs = zip(("T", "k", "p", "min-p"), self, strict=True)
        known = [(name, value) for name, value in pairs if value is not None and (name, value) != ("min-p", 0)]
        return " ".join(f"{name}={_short(value)}" for name, value in known)


def _short(value: float) -> str:
    """In few digits where they are enough: parameters that differ have different names."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


@dataclass(frozen=True)
class Run:
    checkpoint: str
    """The checkpoint's name."""
    sampling: KnownSamplingParams

    def __str__(self) -> str:
        return f"{self.checkpoint} {self.sampling}".strip()

    @property
    def directory(self) -> str:
        """The directory of its traces, relative to the traces of an evaluation."""
        return f"{self.checkpoint}/" + (str(self.sampling).replace(" ", "-").replace("=", "") or "samples")
