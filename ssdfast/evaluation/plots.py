"""Figures of an evaluation as SVG: accuracy, answers found and lengths against the temperature.

Colours are those of Okabe and Ito, which the colour-blind can tell apart; every line also has its own marker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .. import run_dir
from ..plot_style import pyplot, style

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = "osD^vP"
_INK = "#444444"

Bar = tuple[float, float, float]
"""a value and how far it reaches down and up"""


def draw(results: dict[str, Any], directory: Path) -> Iterator[Path]:
    """Writes accuracy.svg, answered.svg and lengths.svg; the same results make the same bytes."""
    units = "/".join(sorted({arm["health"]["length_unit"] for arm in results["arms"]}))
    for name, label, value in (
        ("accuracy", "accuracy, %", lambda arm: _percent(arm["accuracy"])),
        ("answered", "completions with an answer, %", lambda arm: _percent(arm["health"]["answered"])),
        ("lengths", f"length, {units}: median and quartiles", lambda arm: _quartiles(arm["health"]["lengths"])),
    ):
        path = directory / f"{name}.svg"
        with pyplot() as plt, plt.rc_context(style(_INK)):
            figure, axes = plt.subplots(figsize=(5.6, 3.6))
            _panel(axes, results["arms"], value)
            axes.set_ylabel(label)
            figure.tight_layout()
            with run_dir.atomic(path) as temporary:
                figure.savefig(temporary, format="svg", metadata={"Date": None})
            plt.close(figure)
        yield path


def _panel(axes: Any, arms: list[dict[str, Any]], value: Callable[[dict[str, Any]], Bar]) -> None:
    lines = _lines(arms)
    temperatures = sorted({arm["temperature"] for arm in arms if arm["temperature"] is not None})
    swept = len(temperatures) > 1
    for number, (name, members) in enumerate(lines.items()):
        drawn: dict[str, Any] = {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKERS[(number + number // len(COLOURS)) % len(MARKERS)],
            "linewidth": 1.4,
            "label": name,
        }
        known = [arm for arm in members if arm["temperature"] is not None]
        if swept and not known:  # sampled at nobody knows what temperature: a level
            axes.axhline(value(members[0])[0], linestyle="--", **drawn | {"marker": None})
            continue
        bars = [value(arm) for arm in (known if swept else members)]
        # A little apart, so that intervals at the same temperature do not hide one another.
        apart = (number - (len(lines) - 1) / 2) * 0.006 * (temperatures[-1] - temperatures[0] if swept else 1)
        axes.errorbar(
            [arm["temperature"] + apart for arm in known] if swept else [float(number)] * len(bars),
            [bar[0] for bar in bars],
            yerr=[[bar[1] for bar in bars], [bar[2] for bar in bars]],
            linestyle="-" if swept else "none",
            markersize=5,
            capsize=3,
            **drawn,
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


def _lines(arms: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The arms of each checkpoint and truncation, by rising temperature; named by what differs."""
    differing = [name for name in ("top_k", "top_p", "min_p") if len({arm[name] for arm in arms}) > 1]
    lines: dict[str, list[dict[str, Any]]] = {}
    for arm in sorted(arms, key=lambda arm: (arm["temperature"] is None, arm["temperature"] or 0.0)):
        said = [f"{name.replace('_', '-')} {arm[name]:g}" for name in differing if arm[name] is not None]
        lines.setdefault(", ".join([arm["checkpoint"], *said]), []).append(arm)
    order = {arm["checkpoint"]: place for place, arm in reversed(list(enumerate(arms)))}
    return dict(sorted(lines.items(), key=lambda line: order[line[1][0]["checkpoint"]]))


def _percent(share: dict[str, Any]) -> Bar:
    estimate = share["estimate"]
    low, high = (estimate if share[end] is None else share[end] for end in ("low", "high"))
    return 100 * estimate, 100 * (estimate - low), 100 * (high - estimate)


def _quartiles(lengths: dict[str, float]) -> Bar:
    return lengths["p50"], lengths["p50"] - lengths["p25"], lengths["p75"] - lengths["p50"]
