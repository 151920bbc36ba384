"""Probes of several trained models that share a baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..number_format import format_interval
from ..probe_models import finished_models, model_directory
from ..schemas import COMPONENT_TITLES, Trajectory
from .base import Result, check_columns, interval_columns, new_axes
from .probe import Probe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .frame import Frame


class Probes(Result):
    """A run of `ssdfast.probe` with several trained models: a `Probe` for each, by name.

    >>> probes = ssd.load("runs/probes")
    >>> probes.models
    ['checkpoint-1', 'model', 'moved']
    >>> probes["moved"].summary().traces
    8
    """

    @property
    def models(self) -> list[str]:
        """The names of the trained models whose probes are finished, numbers in their order."""
        return list(finished_models(self.directory))

    def __getitem__(self, name: str) -> Probe:
        """The probe of one model. Raises KeyError for a model that is not there."""
        if name not in self.models:
            raise KeyError(f"{self.directory} has no model {name!r}: its models are {', '.join(self.models)}")
        return Probe(model_directory(self.directory, name))

    def __iter__(self) -> Iterator[str]:
        return iter(self.models)

    def __len__(self) -> int:
        return len(self.models)

    def summary(self) -> Frame:
        """One row per model: the means over all positions of `Probe.summary`, with 95 % intervals over traces."""
        from .frame import Frame

        frame = Frame.from_records([self[name].summary().all for name in self])
        frame.insert(0, "model", self.models)
        return frame

    def positions(self, columns: Sequence[str] | None = None) -> Frame:
        """The positions of all models, as `Probe.positions`, with the name of the model in `model`."""
        import pandas as pd

        from .frame import Frame

        frames = []
        for name in self:
            frame = self[name].positions(columns)
            frame.insert(0, "model", name)
            frames.append(frame)
        joined = Frame(pd.concat(frames, ignore_index=True))
        joined["model"] = pd.Categorical(joined["model"], self.models)
        return joined

    def trajectory(self) -> Frame:
        """One row per checkpoint and component of its shift, in the order of the steps: `nats` per position and
        `since_previous`, the change from the checkpoint before, with 95 % intervals over problems; `ssd_strength` and
        the shift `kl_trained_base`, over all positions and of each position class.

        A model is a checkpoint where its path is that of a training run, ``checkpoint-STEP`` or ``train/model``.
        Raises ValueError where fewer than two models are checkpoints.

        >>> rows = ssd.load("runs/probes").trajectory()
        >>> rows[rows["component"] == "ssd"]["step"].tolist()
        [1, 2]
        """
        from .frame import Frame

        rows: list[dict[str, Any]] = []
        for point in self._trajectory().points:
            shared: dict[str, Any] = {"training": point.training, "step": point.step, "model": point.model}
            shared |= interval_columns("kl_trained_base", point.kl_trained_base)
            for name, kl in point.by_position_class.items():
                shared |= interval_columns(f"kl_{name}", kl)
            shared |= interval_columns("ssd_strength", point.ssd_strength)
            for component, nats in point.components.items():
                since = point.since_previous[component]
                own = {
                    "component": component,
                    **interval_columns("nats", nats),
                    **interval_columns("since_previous", since),
                }
                rows.append({**own, **shared})
        first = ["training", "step", "model"]
        frame = Frame(rows)
        return Frame(frame[[*first, *(name for name in frame.columns if name not in first)]])

    def plot(self, metric: str = "kl_trained_base", ax: Axes | None = None) -> Axes:
        """A metric of `summary` for each model, with its interval. Returns the matplotlib Axes."""
        frame = self.summary()
        check_columns([metric], [name for name in frame.columns if f"{name}_ci_low" in frame.columns], self)
        ax = new_axes(ax)
        for place, row in enumerate(frame.to_dict("records")):
            ax.plot([row[f"{metric}_ci_low"], row[f"{metric}_ci_high"]], [place, place], color="C0")
            ax.plot([row[metric]], [place], "o", color="C0")
        ax.set_yticks(range(len(frame)), self.models)
        ax.invert_yaxis()
        ax.set_xlabel(metric)
        return ax

    def plot_trajectory(self, ax: Axes | None = None) -> Axes:
        """The components of the shift against the step, with intervals. Returns the matplotlib Axes.

        Raises ValueError as `trajectory`.
        """
        frame = self.trajectory()
        ax = new_axes(ax)
        for number, (component, title) in enumerate(COMPONENT_TITLES.items()):
            for line, (_, own) in enumerate(frame[frame["component"] == component].groupby("training", sort=False)):
                style = ("-", "--", ":", "-.")[line % 4]
                label = title if line == 0 else "_nolegend_"
                ax.plot(own["step"], own["nats"], f"o{style}", color=f"C{number}", label=label)
                ax.vlines(own["step"], own["nats_ci_low"], own["nats_ci_high"], color=f"C{number}")
        ax.axhline(0, color="0.7", linewidth=0.8, zorder=0)
        ax.set_xlabel("step")
        ax.set_ylabel("nats per position")
        ax.legend(frameon=False)
        return ax

    def _trajectory(self) -> Trajectory:
        path = self.directory / "trajectory.json"
        if not path.exists():
            raise ValueError(
                f"{self.directory} has no trajectory: probe at least two checkpoints of a training, such as --trained"
                " runs/x/train/checkpoints/*"
            )
        return Trajectory.read(path)

    def _lines(self) -> Sequence[str]:
        return [
            f"{name}: shift {format_interval(self[name].summary().all.kl_trained_base)} nats per position"
            for name in self
        ]
