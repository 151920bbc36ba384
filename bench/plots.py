"""Plots of the records, as SVG that is the same for the same records.

The ink is a grey that is legible on white and on black; the two hues differ in lightness, and every bar has a name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from records import OPERATIONS, Record, groups, measured, plot_name, scaling, scaling_plot_name

from ssdfast.plot_style import style

INK, OURS, OTHERS = "#7a8088", "#d55e00", "#56b4e9"
FIGURES = (
    ("ms_per_row_pair", 1.0, "ms per row pair", "{:.3g}"),
    ("peak_extra_bytes", 2**-20, "peak extra memory, MiB", "{:,.0f}"),
    ("fraction_of_roofline", 100.0, "% of the roofline", "{:.1f}"),
)


def draw(records: list[Record], out: Path) -> Iterator[Path]:
    """Writes one file per operation, shape and machine, and one of scaling per operation and machine; yields the paths.

    Any other SVG in `out` belongs to records that no longer exist, and is removed.
    """
    for stale in out.glob("*.svg"):
        stale.unlink()
    with plt.rc_context(style(INK)):
        for name, rows in groups(records):
            if measured(rows):
                yield _save(_bars(name, measured(rows)), out / plot_name(rows[0]))
        for operation in OPERATIONS:
            for machine, rows in scaling(records, operation):
                yield _save(_growth(operation, machine, rows), out / scaling_plot_name(rows[0]))


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return path


def _bars(name: str, rows: list[Record]) -> Figure:
    """Three panels over one list of providers: time and memory (logarithmic), fraction of the roofline."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 0.9 + 0.36 * len(rows)), sharey=True)
    names = [f"{r['provider']}\n{r['gives']}" for r in rows]
    colours = [OURS if r["provider"].startswith("ssdfast") else OTHERS for r in rows]
    for panel, (key, unit, label, form) in zip(axes, FIGURES, strict=True):
        values = [r[key] * unit for r in rows]
        bars = panel.barh(range(len(rows)), values, color=colours, height=0.7)
        panel.bar_label(bars, [form.format(value) for value in values], padding=3, color=INK, fontsize=9)
        panel.set_xlabel(label)
        if key == "fraction_of_roofline":
            panel.set_xlim(0, max(110, 1.15 * max(values)))
            panel.axvline(100, color=INK, linewidth=0.8, linestyle=":")
        else:
            panel.set_xscale("log")
            panel.minorticks_off()
            positive = [value for value in values if value > 0]
            panel.set_xlim(min(positive, default=1) / 2, max(positive, default=1) * 5)
    axes[0].set_yticks(range(len(rows)), names, fontsize=8.5)
    axes[0].invert_yaxis()
    figure.suptitle(name, fontsize=10.5)
    figure.tight_layout()
    return figure


def _growth(operation: str, machine: str, rows: list[Record]) -> Figure:
    """Time per row pair above, peak memory below, against each variable alone."""
    variables = list(dict.fromkeys(r["variable"] for r in rows))
    figure, axes = plt.subplots(2, len(variables), figsize=(2.75 * len(variables), 4.4), sharey="row", squeeze=False)
    for column, variable in enumerate(variables):
        points = [r for r in rows if r["variable"] == variable]
        x = [r[variable] for r in points]
        for (key, unit, label, _), panel in zip(FIGURES[:2], axes[:, column], strict=True):
            panel.plot(x, [r[key] * unit for r in points], "o-", color=OURS, markersize=4)
            if variable == "N":
                panel.set_xscale("log", base=2)
                panel.minorticks_off()
            else:
                panel.set_xlim(left=0)
            panel.set_xticks(x, [f"{value:,}" for value in x], rotation=30, fontsize=8.5)
            if column == 0:
                panel.set_ylabel(label)
        axes[1, column].set_xlabel(variable)
    for panel in axes[:, 0]:
        panel.set_ylim(bottom=0)
    base = ", ".join(f"{name} {value:,}" for name, value in _base(rows, variables).items())
    figure.suptitle(f"{operation}, every column, bf16, two models, around {base}; {machine}", fontsize=10.5)
    figure.tight_layout()
    return figure


def _base(rows: list[Record], variables: list[str]) -> dict[str, int]:
    """The value of each variable while another one changes."""
    return {
        name: next((r[name] for r in rows if r["variable"] != name), rows[0][name])
        for name in variables
        if any(r["variable"] != name for r in rows)
    }
