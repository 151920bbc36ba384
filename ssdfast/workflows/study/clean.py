"""The stages of a study that its settings no longer need: results of settings that were changed since."""

from __future__ import annotations

from pathlib import Path

from ... import run_dir
from ...config import StudyExecution
from ...number_format import format_bytes
from . import graph
from .runner import make_stages, read_study

STUDY = "study.yaml"


def superseded(study: Path) -> list[Path]:
    """The directories of finished stages that the settings in study.yaml do not lead to.

    Raises ValueError for a directory that is no study's, or whose study cannot be read.
    """
    if not (study / STUDY).is_file():
        raise ValueError(f"{study} has no {STUDY}: name the directory of a study")
    stages = graph.ordered(make_stages(read_study(str(study / STUDY)), study, StudyExecution()).final())
    needed = {stage.directory.resolve() for stage in stages}
    finished = {marker.parent for stage in stages for marker in stage.directory.parent.glob(f"*/{graph.DONE}")}
    return sorted(directory for directory in finished if directory.resolve() not in needed)


def format_superseded(stages: list[Path]) -> str:
    """A line per stage with its size, and their sum."""
    sizes = [sum(file.stat().st_size for file in stage.rglob("*") if file.is_file()) for stage in stages]
    width = max((len(str(stage)) for stage in stages), default=0)
    lines = [f"{str(stage).ljust(width)}  {format_bytes(size)}" for stage, size in zip(stages, sizes, strict=True)]
    total = f"{len(stages)} superseded stages, {format_bytes(sum(sizes))}" if stages else "no stage is superseded"
    return "\n".join([*lines, total])


def remove(stages: list[Path]) -> None:
    """Remove these directories. Raises ValueError where another process works on one."""
    for stage in stages:
        with run_dir.lock(stage.parent / f".{stage.name}"):
            run_dir.remove(stage)
