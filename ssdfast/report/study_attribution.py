"""What moved each arm of a study, for its page: parts of the movement, tests against the control, sets, panels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .format_text import estimate
from .page_traces import truncation_told
from .study import Study
from .study_text import MEASURES, PARTS, SETS


def attributions(study: Study) -> dict[str, Any]:
    """By arm."""
    found = study.attribution["arms"]
    control = {(one["kind"], one["set"]): one for one in found[study.control]["pooled"]}
    return {arm: _attribution(found[arm], control) for arm in study.arms}


def _attribution(arm: dict[str, Any], control: dict[tuple[str, str], Any]) -> dict[str, Any]:
    beyond = arm.get("against_control")
    return {
        "parts": [_row(name, arm["movement"]["parts"][part]["nats"], signed=True) for part, name in PARTS.items()],
        "beyond": beyond and [_row(name, beyond["parts"][part], signed=True) for part, name in PARTS.items()],
        "fit": _fit(arm["movement"]),
        "alternatives": _alternatives(arm["movement"]["alternatives"]),
        "tests": beyond and _tests(beyond["measures"]),
        "sets": {
            key: {"title": metric.title, "note": metric.note, "groups": _sets(arm, control, key)}
            for key, metric in MEASURES.items()
        },
    }


def _row(name: str, ends: dict[str, float | None], signed: bool = False, percent: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        **{key: ends[key] for key in ("mean", "low", "high")},
        "text": estimate(ends, signed, percent),
    }


def _fit(moved: dict[str, Any]) -> dict[str, Any]:
    """The joint fit."""
    again = moved["drift_reproduced"]
    rows = [
        ["movement, KL(trained ‖ baseline), nats", estimate(moved["kl"])],
        ["strength of self-distillation, s", estimate(moved["strength"], signed=True)],
        ["temperature", estimate(moved["temperature"])],
        ["log-odds of ending", estimate(moved["ending_log_odds"], signed=True)],
        ["drift that another seed repeats, correlation", "one seed" if again is None else f"{again:.2f}"],
    ]
    return {"head": ["fitted together", ""], "rows": rows}


def _alternatives(alone: dict[str, dict[str, float | None]]) -> dict[str, Any]:
    names = {**PARTS, "truncation": "any T, top-k, top-p"}
    rows = []
    for name, one in alone.items():
        left = one["residual_share"]
        numbers = ", ".join(
            f"{key.replace('_', ' ')} {value:.3g}" for key, value in one.items()
            if key != "residual_share" and value is not None
        )  # fmt: skip
        rows.append([names[name], numbers, "–" if left is None else f"{100 * left:.0f}\u00a0%"])
    return {"head": ["alone", "best numbers", "left unexplained"], "rows": rows, "words": [1]}


def _tests(tests: list[dict[str, Any]]) -> dict[str, Any]:
    """Difference in differences, the largest effects first."""
    rows = [
        [
            MEASURES[one["measure"]].title,
            estimate(one["difference"], signed=True, percent=MEASURES[one["measure"]].percent),
            "–" if one["size"] is None else f"{one['size']:+.2f}".replace("-", "−"),
            *("–" if one[key] is None else f"{one[key]:.2g}" for key in ("p", "p_holm")),
        ]
        for one in tests
    ]
    return {"head": ["measure", "beyond the control", "size, SD over problems", "p", "p, corrected"], "rows": rows}


def _sets(arm: dict[str, Any], control: dict[tuple[str, str], Any], key: str) -> list[dict[str, Any]]:
    """A measure in all sets that have positions, of the arm and of the control."""
    metric = MEASURES[key]
    groups: dict[str, list[dict[str, Any]]] = {}
    for one in arm["pooled"]:
        place = (one["kind"], one["set"])
        row = _row(one["set"].replace("_", " "), one[key], metric.signed, metric.percent)
        row["positions"] = one["positions"]
        theirs = control.get(place)
        if theirs and theirs is not one:
            row["control"] = {end: theirs[key][end] for end in ("mean", "low", "high")}
        groups.setdefault(SETS.get(one["kind"], ""), []).append(row)
    return [{"title": title, "rows": rows} for title, rows in groups.items()]


def panel_charts(arm: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Four figures of what decoding sees, of the baseline and of the first training of an arm."""
    told = truncation_told(found["truncation"])
    edges = found["top_mass_edges"]
    ranks = range(1, 1 + len((found["baseline"] or {"cumulative_mass": ()})["cumulative_mass"]))
    temperatures = found["temperatures"]
    by_mass = _panel(arm, found, "entropy_by_top_mass", range(len(edges) - 1), "Entropy by mass of the top list")
    return [
        _panel(arm, found, "cumulative_mass", ranks, "Mass by rank")
        | {"note": "cumulative, over all positions", "x": "rank"},
        _panel(arm, found, "surviving_tokens", temperatures, "Tokens that survive")
        | {"note": told, "x": "temperature of decoding"},
        _panel(arm, found, "entropy", temperatures, "Entropy after truncation")
        | {"note": f"nats; {told}", "x": "temperature of decoding"},
        by_mass
        | {"note": f"nats; {told}", "x": "mass of the top list, from"}
        | {"ticks": [f"{low:g}".replace("0.", ".") for low in edges[:-1]]},
    ]


def _panel(arm: str, found: dict[str, Any], key: str, xs: Iterable[float], title: str) -> dict[str, Any]:
    series = []
    for side, model in (("baseline", "baseline"), ("trained", arm)):
        if found[side]:
            points = [
                [at, one["mean"], one["low"], one["high"]]
                for at, one in zip(xs, found[side][key], strict=True)
                if one["mean"] is not None
            ]
            series.append({"name": model, "model": model, "points": points})
    return {"title": title, "series": series}
