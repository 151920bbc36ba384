"""Where a probe of several trained models keeps each of them: OUT/models/NAME, beside OUT/models/baseline."""

from __future__ import annotations

from pathlib import Path

from .config import BASELINE

MODELS = "models"
"""the directory that has one for each model"""


def model_directory(out: Path, name: str) -> Path:
    """The directory of one of the models of a probe in `out`."""
    return out / MODELS / name


def finished_models(out: Path) -> dict[str, Path]:
    """The directories of the trained models whose probes in `out` are finished, by name, numbers in their order; empty
    for a probe of one model."""
    files = (out / MODELS).glob("*/summary.json")
    names = sorted((file.parent.name for file in files), key=lambda name: (name.rstrip("0123456789"), len(name), name))
    return {name: model_directory(out, name) for name in names if name != BASELINE}
