"""A trained model, and the metrics of its training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..schemas import StepMetrics, TrainingRecord, read_metrics
from .base import Result, check_columns, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .frame import Frame


class Model(Result):
    """A run of `ssdfast.train`.

    >>> model = ssd.load("runs/trained")
    >>> model.path.name
    'model'
    >>> model.metrics()[["step", "loss"]].shape
    (2, 2)
    """

    @property
    def path(self) -> Path:
        """The directory of the weights (safetensors), for any library that loads models of transformers."""
        return self.directory / "train" / "model"

    def record(self) -> TrainingRecord:
        """The traces that the model was trained on. Raises ValueError for a file of another version."""
        return TrainingRecord.read(self.directory / "train" / "filters.json")

    def metrics(self) -> Frame:
        """One row per step: `loss` in nats per completion token, `grad_norm` before clipping, and so on."""
        from .frame import Frame

        return Frame.from_records(self._steps())

    def plot(self, metric: str = "loss", ax: Axes | None = None) -> Axes:
        """A metric against the step. Returns the matplotlib Axes. Raises ValueError for an unknown metric."""
        check_columns([metric], list(StepMetrics.model_fields), self)
        ax = new_axes(ax)
        steps = self._steps()
        ax.plot([step.step for step in steps], [getattr(step, metric) for step in steps])
        ax.set_xlabel("step")
        ax.set_ylabel(metric)
        return ax

    def _steps(self) -> list[StepMetrics]:
        return read_metrics(self.directory / "train" / "metrics.jsonl")

    def _lines(self) -> Sequence[str]:
        steps = self._steps()
        last = f", last loss {steps[-1].loss:.3f}" if steps and steps[-1].loss is not None else ""
        return [f"{len(steps):,} steps{last}", str(self.path)]
