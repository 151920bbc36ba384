"""Plots of an evaluation as SVG: accuracy, answer rate and length against the temperature.

The colours are those of Okabe and Ito, which colour-blind readers can distinguish; every line also has its own marker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import run_dir
from ..plot_style import pyplot, style
from ..schemas import EvaluationResults, Interval, LengthSummary, RunResults

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = "osD^vP"
_INK = "#444444"

Bar = tuple[float, float, float]
"""A value, and the distances to the lower and the upper end of its bar."""


def draw(results: EvaluationResults, directory: Path) -> Iterator[Path]:
    """Writes accuracy.svg, answer_rate.svg and length.svg; the same results make the same bytes."""
    units = "/".join(sorted({run.diagnostics.length.unit for run in results.runs}))
    for name, label, value in (
        ("accuracy", "accuracy, %", lambda run: _percent(run.accuracy)),
        ("answer_rate", "completions with an answer, %", lambda run: _percent(run.diagnostics.answer_rate)),
        (
            "length",
            f"length, {units}: median and quartiles",
            lambda run: _quartiles(run.diagnostics.length.all),
        ),
    ):
        path = directory / f"{name}.svg"
        with pyplot() as plt, plt.rc_context(style(_INK)):
            figure, axes = plt.subplots(figsize=(5.6, 3.6))
            _panel(axes, results.runs, value)
            axes.set_ylabel(label)
            figure.tight_layout()
            with run_dir.atomic(path) as temporary:
                figure.savefig(temporary, format="svg", metadata={"Date": None})
            plt.close(figure)
        yield path


def _panel(axes: Any, runs: Sequence[RunResults], value: Callable[[RunResults], Bar]) -> None:
    lines = _lines(runs)
    temperatures = sorted({run.temperature for run in runs if run.temperature is not None})
    swept = len(temperatures) > 1
    for number, (name, members) in enumerate(lines.items()):
        line_style: dict[str, Any] = {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKERS[(number + number // len(COLOURS)) % len(MARKERS)],
            "linewidth": 1.4,
            "label": name,
        }
        known = [(run, run.temperature) for run in members if run.temperature is not None]
        if swept and not known:  # at an unknown temperature: a horizontal line
            axes.axhline(value(members[0])[0], linestyle="--", **line_style | {"marker": None})
            continue
        bars = [value(run) for run in ([run for run, _ in known] if swept else members)]
        # A small offset, so that intervals at the same temperature do not hide one another.
        offset = (number - (len(lines) - 1) / 2) * 0.006 * (temperatures[-1] - temperatures[0] if swept else 1)
        axes.errorbar(
            [temperature + offset for _, temperature in known] if swept else [float(number)] * len(bars),
            [bar[0] for bar in bars],
            yerr=[[bar[1] for bar in bars], [bar[2] for bar in bars]],
            linestyle="-" if swept else "none",
            markersize=5,
            capsize=3,
            **line_style,
        )
    if swept:
        axes.set_xlabel("temperature of evaluation")
        axes.set_xticks(temperatures, [f"{t:g}" for t in temperatures])
        axes.legend(fontsize=8.5)
    else:
        many = len(lines) > 3
        axes.set_xticks(range(len(lines)), list(lines), rotation=20 if many else 0, ha="right" if many else "center")
        axes.set_xlim(-0.6, len(lines) - 0.4)
    axes.set_ylim(bottom=0)


def _lines(runs: Sequence[RunResults]) -> dict[str, list[RunResults]]:
    """The runs of each checkpoint and truncation, by rising temperature; named by the parameters that differ."""
    differing = [name for name in ("top_k", "top_p", "min_p") if len({getattr(run, name) for run in runs}) > 1]
    lines: dict[str, list[RunResults]] = {}
    for run in sorted(runs, key=lambda run: (run.temperature is None, run.temperature or 0.0)):
        values = {name: getattr(run, name) for name in differing}
        truncation = [f"{name.replace('_', '-')} {value:g}" for name, value in values.items() if value is not None]
        lines.setdefault(", ".join([run.checkpoint, *truncation]), []).append(run)
    order = {run.checkpoint: place for place, run in reversed(list(enumerate(runs)))}
    return dict(sorted(lines.items(), key=lambda line: order[line[1][0].checkpoint]))


def _percent(fraction: Interval) -> Bar:
    value = fraction.value or 0.0
    low, high = (value if end is None else end for end in (fraction.ci_low, fraction.ci_high))
    return 100 * value, 100 * (value - low), 100 * (high - value)


def _quartiles(length: LengthSummary) -> Bar:
    return length.p50, length.p50 - length.p25, length.p75 - length.p50
