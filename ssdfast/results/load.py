"""``load``: the result in a directory."""

from __future__ import annotations

import os
from pathlib import Path

from ..probe_models import finished_models
from .attribution import Attribution
from .base import Result
from .evaluation import Evaluation
from .model import Model
from .probe import Probe
from .probes import Probes
from .study import Study
from .traces import Traces

# The first whose file is there. A run that is not finished has no result yet, but a place for it.
_KINDS: tuple[tuple[str, type[Result]], ...] = (
    ("study.yaml", Study),
    ("attribution.json", Attribution),
    ("eval/results.json", Evaluation),
    ("train/model", Model),
    ("summary.json", Probe),
    ("positions", Probe),
    ("sampling.json", Traces),
)


def load(directory: str | os.PathLike[str]) -> Traces | Model | Probe | Probes | Evaluation | Attribution | Study:
    """The result in a directory that a stage filled, or the traces in a directory of Parquet files.

    Raises ValueError in one sentence for a directory that holds none, of another version, or of a run that is not
    finished.

    >>> ssd.load("runs/probe")
    ssdfast.Probe('runs/probe')
    >>> ssd.load("runs/nothing")
    Traceback (most recent call last):
    ValueError: there is no directory runs/nothing: name the --out of a stage
    """
    path = Path(directory).expanduser()
    if not path.is_dir():
        raise ValueError(f"there is no directory {path}: name the --out of a stage")
    for name, kind in _KINDS:
        if (path / name).exists():
            result = kind(path)
            _check(result)
            return result  # type: ignore[return-value]
    if finished_models(path):
        return Probes(path)
    if any(path.glob("*.parquet")) or any((path / "traces").glob("*.parquet")):
        traces = Traces(path)
        _check(traces)
        return traces
    if (path / "train").is_dir() or (path / "config.yaml").exists():
        raise ValueError(f"{path} is a run that is not finished: start the command that began it again")
    raise ValueError(f"{path} holds no result of a stage (no {', '.join(name for name, _ in _KINDS)})")


def _check(result: Result) -> None:
    """Raises ValueError for results of another version or of an unfinished run."""
    if isinstance(result, Attribution | Evaluation):
        result.results()
    elif isinstance(result, Traces):
        result.summary()
        _ = result.files
    elif isinstance(result, Probe):
        result.summary()
