"""An attribution: what the shift of each arm is made of, beside a control."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..schemas import AttributionResults
from .base import Result, interval_columns, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .frame import Frame


class Attribution(Result):
    """A run of `ssdfast.attribute`, and what a study found.

    >>> attribution = ssd.load("runs/attribution")
    >>> attribution.verdicts()["arm"].tolist()
    ['ssd']
    >>> sorted(attribution.components()["component"].unique())
    ['eos_bias', 'residual', 'ssd', 'temperature']
    """

    def results(self) -> AttributionResults:
        """All statistics. Raises ValueError for a directory that is not finished, or of another version."""
        path = self.directory / "attribution.json"
        if not path.exists():
            raise ValueError(f"{self.directory} is not finished: start the command that began it again")
        return AttributionResults.read(path)

    def verdicts(self) -> Frame:
        """One row per arm but the control: `category`, `headline` and the whole `text`."""
        from .frame import Frame

        rows = [
            {"arm": arm, "category": verdict.category, "headline": verdict.headline, "text": verdict.text}
            for arm, entry in self.results().arms.items()
            if (verdict := entry.verdict)
        ]
        return Frame(rows, columns=["arm", "category", "headline", "text"])

    def components(self) -> Frame:
        """One row per arm and component of its shift: `nats` per position and `fraction` of the shift, with intervals;
        `beyond_control` in nats, missing for the control."""
        from .frame import Frame

        rows: list[dict[str, Any]] = []
        for arm, entry in self.results().arms.items():
            for component, size in entry.shift.components.items():
                row: dict[str, Any] = {"arm": arm, "component": component}
                beyond = entry.vs_control.components[component] if entry.vs_control else None
                for name, interval in (("nats", size.nats), ("fraction", size.fraction), ("beyond_control", beyond)):
                    row |= interval_columns(name, interval)
                rows.append(row)
        return Frame(rows)

    def plot(self, ax: Axes | None = None) -> Axes:
        """The components of every arm in nats per position, with intervals. Returns the matplotlib Axes."""
        ax = new_axes(ax)
        arms = self.results().arms
        names = list(next(iter(arms.values())).shift.components)
        for number, (arm, entry) in enumerate(arms.items()):
            offset = (number - (len(arms) - 1) / 2) * 0.8 / len(arms)
            for place, name in enumerate(names):
                nats = entry.shift.components[name].nats
                if nats.value is not None and nats.ci_low is not None and nats.ci_high is not None:
                    label = arm if place == 0 else "_nolegend_"
                    ax.plot([place + offset], [nats.value], "o", color=f"C{number}", label=label)
                    ax.plot([place + offset] * 2, [nats.ci_low, nats.ci_high], color=f"C{number}")
        ax.axhline(0, color="0.7", linewidth=0.8, zorder=0)
        ax.set_xticks(range(len(names)), [name.replace("_", " ") for name in names])
        ax.set_ylabel("nats per position")
        ax.legend(frameon=False)
        return ax

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(arm)}</td><td>{html.escape(entry.verdict.headline if entry.verdict else 'control')}"
            "</td></tr>"
            for arm, entry in self.results().arms.items()
        )
        return f"{super()._repr_html_()}<table><tr><th>arm</th><th>verdict</th></tr>{rows}</table>"

    def _lines(self) -> Sequence[str]:
        results = self.results()
        return [f"{results.traces:,} traces of {results.problems:,} problems, beside the arm {results.control}"]
