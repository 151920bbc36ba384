"""The summary of a stage in experiment trackers: tensorboard, wandb, trackio. Training reports its steps itself."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .messages import one_line

PROJECT = "ssdfast"
"""The project of all runs, unless WANDB_PROJECT names another for wandb."""

_log = logging.getLogger("ssdfast.trackers")


def check_summary_trackers(names: Sequence[str]) -> None:
    """Raises ValueError for a tracker that is unknown or not installed, before any work."""
    for name in names:
        if name not in _WRITERS:
            raise ValueError(f"report_to: {name!r} is unknown here: choose from {', '.join(_WRITERS)}")
        if find_spec(name) is None:
            raise ValueError(f"report_to: {name} is not installed: pip install {name}, or leave it out")


def report_summary(names: Sequence[str], stage: str, directory: Path, values: dict[str, Any]) -> None:
    """Send the numbers of a stage's JSON, under names such as ``probe/all/kl_trained_base/value``.

    A tracker that fails is logged as a warning: the results are on disk.
    """
    numbers = dict(_flatten(values, stage))
    for name in names:
        try:
            _WRITERS[name](directory, stage, numbers)
        except Exception as error:
            _log.warning("%s did not take the summary of %s: %s", name, directory, one_line(error))


def _flatten(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, bool) or name.endswith(("/schema_version", "/settings")):
        return
    if isinstance(value, int | float):
        yield name, float(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _flatten(item, f"{name}/{key}")
    elif isinstance(value, list):
        for place, item in enumerate(value):
            label = item.get("name", place) if isinstance(item, dict) else place
            yield from _flatten(item, f"{name}/{label}")


def _tensorboard(directory: Path, stage: str, numbers: dict[str, float]) -> None:
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(directory / "tensorboard"))
    with writer:
        for name, number in numbers.items():
            writer.add_scalar(name, number)


def _wandb(directory: Path, stage: str, numbers: dict[str, float]) -> None:
    import wandb

    project = os.environ.get("WANDB_PROJECT", PROJECT)
    with wandb.init(project=project, name=directory.resolve().name, job_type=stage, dir=str(directory)) as run:
        run.log(numbers)


def _trackio(directory: Path, stage: str, numbers: dict[str, float]) -> None:
    import trackio

    trackio.init(project=PROJECT, name=f"{stage}-{directory.resolve().name}")
    trackio.log(numbers)
    trackio.finish()


_WRITERS: dict[str, Callable[[Path, str, dict[str, float]], None]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "trackio": _trackio,
}
