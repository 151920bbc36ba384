"""The verdict on an arm: a category and a paragraph, built from its numbers, with what would change the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..number_format import format_interval, format_p_value

ALPHA = 0.05
MIN_FRACTION = 0.15
"""fraction of an arm's shift beyond the control from which on a component is named"""
MIXTURE, NONE = "mixture", "none"

_TITLES = {
    "ssd": "self-distillation",
    "temperature": "a temperature change",
    "eos_bias": "an EOS bias",
    "residual": "a residual that no component explains",
    MIXTURE: "a mixture",
    NONE: "no effect beyond the control",
}


def verdict(name: str, control: str, shift: Mapping[str, Any], comparison: Mapping[str, Any]) -> dict[str, Any]:
    """`category`, `headline`, the `components` that are named, `fractions` of the arm's shift beyond the control (None
    without effect), `text`. JSON.

    shift: from `arm_stats.describe_shift`. comparison: from `contrasts.compare_with_control`.
    A component is named if it explains MIN_FRACTION of the total, or the fit loses that much without it, with an
    interval above 0; the second finds a component that opposes another. Without a metric that differs from the
    control's by Holm at ALPHA, with an interval that excludes 0, there is no effect to name.
    """
    significant = [test for test in comparison["metrics"] if _is_significant(test)]
    nats = {component: interval["value"] or 0.0 for component, interval in comparison["components"].items()}
    total = sum(max(value, 0.0) for value in nats.values())
    fractions = {component: value / total if total > 0 else 0.0 for component, value in nats.items()}
    named = [component for component in nats if total > 0 and _is_named(component, comparison, MIN_FRACTION * total)]
    category = NONE
    if significant and named:
        category = named[0] if len(named) == 1 else MIXTURE
    named = named if category != NONE else []
    sentences = [
        _format_headline(name, control, category, named, fractions, smaller=sum(nats.values()) < 0),
        _format_evidence(shift, significant, comparison),
        _format_components(shift, control, comparison),
        _format_sensitivity(category, named, fractions, significant, shift),
    ]
    return {
        "category": category,
        "headline": sentences[0].removeprefix(f"{name}: ").removesuffix("."),
        "components": named,
        "fractions": fractions if category != NONE else dict.fromkeys(fractions),
        "text": " ".join(sentences),
    }


def _is_significant(test: Mapping[str, Any]) -> bool:
    interval = test["difference"]
    if test["p_value_holm"] is None or test["p_value_holm"] > ALPHA or interval["ci_low"] is None:
        return False
    return bool(interval["ci_low"] > 0 or interval["ci_high"] < 0)


def _is_named(component: str, comparison: Mapping[str, Any], least: float) -> bool:
    intervals = [comparison[key][component] for key in ("components", "drop_one") if component in comparison[key]]
    return any(_is_positive(interval) and interval["value"] >= least for interval in intervals)


def _is_positive(interval: Mapping[str, float | None]) -> bool:
    return interval["ci_low"] is not None and interval["ci_low"] > 0


def _format_headline(
    name: str, control: str, category: str, named: list[str], fractions: Mapping[str, float], smaller: bool
) -> str:
    """smaller: the arm's whole shift is smaller than the control's."""
    if category == NONE:
        return f"{name}: no effect beyond {control}."
    in_all = f", though its whole shift is smaller than that of {control}" if smaller else ""
    if category == MIXTURE:
        components = ", ".join(
            f"{_TITLES[component]} ({fractions[component]:.0%}"
            f"{', against the others' if fractions[component] < 0 else ''})"
            for component in sorted(named, key=lambda component: -fractions[component])
        )
        return f"{name}: a mixture of {components}{in_all}."
    if smaller:
        return f"{name}: {_TITLES[category]}{in_all}."
    return f"{name}: {_TITLES[category]} ({fractions[category]:.0%} of its shift beyond {control})."


def _format_evidence(
    shift: Mapping[str, Any], significant: list[Mapping[str, Any]], comparison: Mapping[str, Any]
) -> str:
    text = (
        f"Its shift from the baseline, KL(trained ‖ baseline), is {format_interval(shift['kl_trained_base'])} nats per"
        " position (95 % intervals over problems)."
    )
    if not significant:
        smallest = min(
            (test["p_value_holm"] for test in comparison["metrics"] if test["p_value_holm"] is not None), default=None
        )
        return text + (
            " No metric differs significantly from the control's"
            + (f" (the smallest corrected p-value is {smallest:.2g})." if smallest is not None else ".")
        )
    largest = significant[0]
    return text + (
        f" {len(significant)} of {len(comparison['metrics'])} metrics differ from the control's; the largest effect is"
        f" {largest['metric']}, {format_interval(largest['difference'])} ({largest['effect_size_sd']:+.2f} standard"
        f" deviations over problems, corrected p-value {format_p_value(largest['p_value_holm'])})."
    )


def _format_components(shift: Mapping[str, Any], control: str, comparison: Mapping[str, Any]) -> str:
    components = ", ".join(
        f"{_TITLES[component]} {format_interval(interval)}" for component, interval in comparison["components"].items()
    )
    titles = {**_TITLES, "truncation": "any temperature, top-k and top-p"}
    unexplained = ", ".join(
        f"{titles[name]} {fit['unexplained_fraction']:.0%}"
        for name, fit in shift["single_component_fits"].items()
        if fit["unexplained_fraction"] is not None
    )
    return (
        f"Fitted together, the components have strength s = {format_interval(shift['ssd_strength'])}, temperature"
        f" {format_interval(shift['temperature'])} and an EOS bias of {format_interval(shift['eos_log_odds'])}"
        f" log-odds. Beyond {control} they explain, in nats per position: {components}."
        + (f" Fitted alone, they leave unexplained of the whole shift: {unexplained}." if unexplained else "")
    )


def _format_sensitivity(
    category: str,
    named: list[str],
    fractions: Mapping[str, float],
    significant: list[Mapping[str, Any]],
    shift: Mapping[str, Any],
) -> str:
    if category == NONE and not significant:
        text = (
            "The verdict would change if a metric differed from the control's at a corrected p-value of"
            f" {ALPHA:g} with an interval that excludes 0. An effect smaller than these intervals is not ruled out."
        )
    elif category == NONE:
        text = (
            "Metrics differ, but no component is larger than the control's. The verdict would change if one were, by"
            f" {MIN_FRACTION:.0%} of the total and with an interval above 0."
        )
    else:
        others = {component: fraction for component, fraction in fractions.items() if component not in named}
        changes = [
            f"{_TITLES[component]} reached it (now {f'{fraction:.0%}' if fraction >= 0 else 'less than the control'})"
            for component, fraction in others.items()
        ]
        changes += [f"{_TITLES[component]} fell below it" for component in named]
        text = (
            f"A component is named that explains {MIN_FRACTION:.0%} of this, or without which the fit loses that much,"
            f" with an interval above 0. The verdict would change if {', or '.join(changes)}."
        )
    if len(shift["by_seed"]) == 1:
        text += " With one seed, this is about this trained model; another training of the same arm may differ."
    return text
