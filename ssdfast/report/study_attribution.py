"""What shifted each arm of a study, for its page: components, tests against the control, groups, decoding curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..number_format import NBSP, format_interval, format_p_value
from ..schemas import (
    COMPONENT_TITLES,
    ArmResults,
    ControlComparison,
    Curves,
    GroupMetrics,
    Interval,
    MetricTest,
    Shift,
    SingleFit,
)
from .probe_source import format_truncation
from .study import Study
from .study_text import GROUP_KINDS, METRICS


def attributions(study: Study) -> dict[str, Any]:
    """By arm."""
    arms = study.attribution.arms
    control = {(entry.group_kind, entry.group): entry for entry in arms[study.control].by_group}
    return {arm: _attribution(arms[arm], control) for arm in study.arms}


def _attribution(arm: ArmResults, control: dict[tuple[str, str], GroupMetrics]) -> dict[str, Any]:
    comparison, shift = arm.vs_control, arm.shift
    return {
        "components": [
            _row(title, shift.components[name].nats, signed=True) for name, title in COMPONENT_TITLES.items()
        ],
        "beyond": comparison
        and [_row(title, comparison.components[name], signed=True) for name, title in COMPONENT_TITLES.items()],
        "fit": _joint_fit(shift),
        "classes": _classes(shift, comparison),
        "componentTests": comparison and _component_tests(comparison),
        "singleFits": _single_component_fits(shift.single_component_fits),
        "tests": comparison and _tests(comparison.metrics),
        "groups": {
            key: {"title": metric.title, "note": metric.note, "groups": _groups(arm, control, key)}
            for key, metric in METRICS.items()
        },
    }


def _row(name: str, interval: Interval, signed: bool = False, percent: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        **_ends(interval),
        "text": format_interval(interval, signed, percent),
    }


def _ends(interval: Interval) -> dict[str, float | None]:
    return {"value": interval.value, "ci_low": interval.ci_low, "ci_high": interval.ci_high}


def _joint_fit(shift: Shift) -> dict[str, Any]:
    correlation = shift.residual_seed_correlation
    rows = [
        ["shift, KL(trained ‖ baseline), nats", format_interval(shift.kl_trained_base)],
        ["strength of self-distillation, s", format_interval(shift.ssd_strength, signed=True)],
        ["temperature", format_interval(shift.temperature)],
        ["EOS bias, log-odds", format_interval(shift.eos_log_odds, signed=True)],
        ["correlation of the residual between seeds", "one seed" if correlation is None else f"{correlation:.2f}"],
    ]
    return {"head": ["fitted together", ""], "rows": rows}


def _classes(shift: Shift, comparison: ControlComparison | None) -> dict[str, Any]:
    """The parameters of each class of positions, and whether strength and temperature differ from the control's."""
    p_values = {
        (test.component, entry.position_class): format_p_value(entry.p_value_holm)
        for test in (comparison.tests if comparison else ())
        for entry in test.by_position_class
    }
    rows = []
    for entry in shift.by_position_class:
        name = entry.position_class
        strength, temperature = (
            format_interval(entry.ssd_strength, signed=True),
            format_interval(entry.temperature),
        )
        rows.append(
            [name.replace("_", " "), f"{entry.positions:,}", strength, p_values.get(("ssd", name), "–"),
             temperature, p_values.get(("temperature", name), "–")]
        )  # fmt: skip
    head = ["class", "positions", "strength s", "p-value, corrected", "temperature", "p-value, corrected"]
    return {"head": head, "rows": rows}


def _component_tests(comparison: ControlComparison) -> dict[str, Any]:
    """The tests that decide the verdict."""
    rows = []
    for test in comparison.tests:
        difference = comparison.parameters.get(test.parameter or "")
        rows.append(
            [
                COMPONENT_TITLES[test.component],
                "–" if difference is None else format_interval(difference, signed=True),
                "–" if difference is None or difference.mde is None else f"{difference.mde:.2g}",
                format_p_value(test.p_value),
                format_p_value(test.p_value_holm),
            ]
        )
    head = ["component", "parameter, beyond the control", "minimum detectable", "p-value", "p-value, corrected"]
    return {"head": head, "rows": rows}


_SYMBOLS = {"ssd_strength": "s", "temperature": "T", "top_k": "k", "top_p": "p", "eos_log_odds": "log-odds"}


def _single_component_fits(fits: Mapping[Any, SingleFit]) -> dict[str, Any]:
    names = {**{str(name): title for name, title in COMPONENT_TITLES.items()}, "truncation": "any T, top-k, top-p"}
    rows = []
    for name, fit in fits.items():
        unexplained = fit.unexplained_fraction
        parameters = ", ".join(
            f"{symbol} = {value:.3g}" for key, symbol in _SYMBOLS.items() if (value := getattr(fit, key)) is not None
        )
        rows.append([names[name], parameters, "–" if unexplained is None else f"{100 * unexplained:.0f}{NBSP}%"])
    return {"head": ["fitted alone", "best parameters", "unexplained"], "rows": rows, "words": [1]}


def _tests(tests: Sequence[MetricTest]) -> dict[str, Any]:
    """Difference in differences, the largest effects first."""
    rows = [
        [
            METRICS[test.metric].title,
            format_interval(test.difference, signed=True, percent=METRICS[test.metric].percent),
            "–" if test.effect_size_sd is None else f"{test.effect_size_sd:+.2f}".replace("-", "−"),
            format_p_value(test.p_value),
            format_p_value(test.p_value_holm),
        ]
        for test in tests
    ]
    head = ["metric", "beyond the control", "effect size, SD over problems", "p-value", "p-value, corrected"]
    return {"head": head, "rows": rows}


def _groups(arm: ArmResults, control: dict[tuple[str, str], GroupMetrics], key: str) -> list[dict[str, Any]]:
    """A metric in all groups that have positions, of the arm and of the control."""
    metric = METRICS[key]
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for entry in arm.by_group:
        row = _row(entry.group.replace("_", " "), getattr(entry, key), metric.signed, metric.percent)
        row["positions"] = entry.positions
        control_entry = control.get((entry.group_kind, entry.group))
        if control_entry and control_entry is not entry:
            row["control"] = _ends(getattr(control_entry, key))
        by_kind.setdefault(GROUP_KINDS.get(entry.group_kind, ""), []).append(row)
    return [{"title": title, "rows": rows} for title, rows in by_kind.items()]


def decoding_charts(arm: str, curves: Curves) -> list[dict[str, Any]]:
    """Four figures of the effect under decoding, of the baseline and of the first training of an arm."""
    truncation = format_truncation(curves.truncation.top_k, curves.truncation.top_p)
    edges = curves.top_mass_edges
    ranks = range(1, 1 + (len(curves.baseline.cumulative_mass) if curves.baseline else 0))
    temperatures = curves.temperatures
    by_mass = _chart(arm, curves, "entropy_by_top_mass", range(len(edges) - 1), "Entropy by mass of the top list")
    return [
        _chart(arm, curves, "cumulative_mass", ranks, "Mass by rank")
        | {"note": "cumulative, over all positions", "x": "rank"},
        _chart(arm, curves, "surviving_tokens", temperatures, "Tokens that survive")
        | {"note": truncation, "x": "sampling temperature"},
        _chart(arm, curves, "entropy", temperatures, "Entropy after truncation")
        | {"note": f"nats; {truncation}", "x": "sampling temperature"},
        by_mass
        | {"note": f"nats; {truncation}", "x": "mass of the top list, from"}
        | {"ticks": [f"{low:g}".replace("0.", ".") for low in edges[:-1]]},
    ]


def _chart(arm: str, curves: Curves, key: str, xs: Iterable[float], title: str) -> dict[str, Any]:
    series = []
    for name, values in (("baseline", curves.baseline), (arm, curves.trained)):
        if values:
            points = [
                [x, *_ends(entry).values()]
                for x, entry in zip(xs, getattr(values, key), strict=True)
                if entry.value is not None
            ]
            series.append({"name": name, "model": name, "points": points})
    return {"title": title, "series": series}
