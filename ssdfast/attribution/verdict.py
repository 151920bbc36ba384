"""What moved an arm, in one word and one paragraph, built from the numbers; and when it would be another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

ALPHA = 0.05
COUNTS = 0.15
"""share of what an arm moved beyond the control from which on a part is named"""
MIXTURE, NONE = "mixture", "none"

_TITLES = {
    "ssd": "self-distillation",
    "temperature": "a change of temperature",
    "ending": "a bias toward ending",
    "drift": "drift that no explanation covers",
    MIXTURE: "a mixture",
    NONE: "no effect beyond the control",
}


def verdict(name: str, control: str, moved: Mapping[str, Any], beyond: Mapping[str, Any]) -> dict[str, Any]:
    """`category`, `headline`, `named` parts, `shares` of what the arm moved beyond the control (None without effect),
    `text`. JSON.

    moved: what `arms.movement` says of the arm. beyond: what `contrasts.against_control` says of it.
    A part is named if it accounts for COUNTS of the whole, or so much would be lost without it, with an interval above
    0; the second finds a part that opposes another. Without a measure that differs from the control's by Holm at ALPHA,
    with an interval that excludes 0, there is nothing to name.
    """
    differing = [test for test in beyond["measures"] if _differs(test)]
    nats = {part: one["mean"] or 0.0 for part, one in beyond["parts"].items()}
    total = sum(max(value, 0.0) for value in nats.values())
    shares = {part: value / total if total > 0 else 0.0 for part, value in nats.items()}
    named = [part for part in nats if total > 0 and _counts(part, beyond, COUNTS * total)]
    category = NONE
    if differing and named:
        category = named[0] if len(named) == 1 else MIXTURE
    named = named if category != NONE else []
    sentences = [
        _headline(name, control, category, named, shares, less=sum(nats.values()) < 0),
        _evidence(moved, differing, beyond),
        _explained(moved, control, beyond),
        _otherwise(category, named, shares, differing, moved),
    ]
    return {
        "category": category,
        "headline": sentences[0].removeprefix(f"{name}: ").removesuffix("."),
        "named": named,
        "shares": shares if category != NONE else dict.fromkeys(shares),
        "text": " ".join(sentences),
    }


def _differs(test: Mapping[str, Any]) -> bool:
    ends = test["difference"]
    if test["p_holm"] is None or test["p_holm"] > ALPHA or ends["low"] is None:
        return False
    return bool(ends["low"] > 0 or ends["high"] < 0)


def _counts(part: str, beyond: Mapping[str, Any], least: float) -> bool:
    found = [beyond["parts"][part], *([beyond["lost_without"][part]] if part in beyond["lost_without"] else [])]
    return any(_above(ends) and ends["mean"] >= least for ends in found)


def _above(ends: Mapping[str, float | None]) -> bool:
    return ends["low"] is not None and ends["low"] > 0


def _headline(name: str, control: str, category: str, named: list[str], shares: Mapping[str, float], less: bool) -> str:
    """less: in all, the arm moved less than the control."""
    if category == NONE:
        return f"{name}: no effect beyond {control}."
    in_all = f", though in all it moved less than {control}" if less else ""
    if category == MIXTURE:
        made_of = ", ".join(
            f"{_TITLES[part]} ({shares[part]:.0%}{', against the others' if shares[part] < 0 else ''})"
            for part in sorted(named, key=lambda part: -shares[part])
        )
        return f"{name}: a mixture of {made_of}{in_all}."
    if less:
        return f"{name}: {_TITLES[category]}{in_all}."
    return f"{name}: {_TITLES[category]} ({shares[category]:.0%} of what it moved beyond {control})."


def _evidence(moved: Mapping[str, Any], differing: list[Mapping[str, Any]], beyond: Mapping[str, Any]) -> str:
    said = f"It moved {_range(moved['kl'])} nats a position from the baseline (KL, 95 % intervals over problems)."
    if not differing:
        least = min((test["p_holm"] for test in beyond["measures"] if test["p_holm"] is not None), default=None)
        return said + (
            " None of the measures differs from the control's"
            + (f" (the least corrected p is {least:.2g})." if least is not None else ".")
        )
    first = differing[0]
    return said + (
        f" {len(differing)} of {len(beyond['measures'])} measures differ from the control's; the largest effect is"
        f" {first['measure']}, {_range(first['difference'])} ({first['size']:+.2f} standard deviations over problems,"
        f" corrected p = {first['p_holm']:.2g})."
    )


def _explained(moved: Mapping[str, Any], control: str, beyond: Mapping[str, Any]) -> str:
    parts = ", ".join(f"{_TITLES[part]} {_range(one)}" for part, one in beyond["parts"].items())
    alone = {name: one["residual_share"] for name, one in moved["alternatives"].items()}
    left = ", ".join(f"{name} {share:.0%}" for name, share in alone.items() if share is not None)
    return (
        f"Together the explanations give strength s = {_range(moved['strength'])}, temperature"
        f" {_range(moved['temperature'])} and {_range(moved['ending_log_odds'])} log-odds of ending; beyond {control}"
        f" they account for, in nats a position: {parts}."
        + (f" Alone they leave unexplained, of all that moved: {left}." if left else "")
    )


def _otherwise(
    category: str,
    named: list[str],
    shares: Mapping[str, float],
    differing: list[Mapping[str, Any]],
    moved: Mapping[str, Any],
) -> str:
    if category == NONE and not differing:
        said = (
            f"It would be otherwise if a measure differed from the control's at a corrected p of {ALPHA:g} with an"
            " interval that excludes 0: an effect smaller than these intervals is not ruled out."
        )
    elif category == NONE:
        said = (
            "Measures differ, but no explanation's part lies above the control's: it would be otherwise if one did, by"
            f" {COUNTS:.0%} of the whole and with an interval above 0."
        )
    else:
        others = {part: share for part, share in shares.items() if part not in named}
        said = (
            f"A part is named that accounts for {COUNTS:.0%} of this, or without which so much would be lost, with an"
            " interval above 0; so it would be otherwise if"
        )
        turns = [
            f"{_TITLES[part]} had that much (it has {f'{share:.0%}' if share >= 0 else 'less than the control'})"
            for part, share in others.items()
        ]
        turns += [f"{_TITLES[part]} fell below it" for part in named]
        said += " " + ", or ".join(turns) + "."
    if len(moved["by_seed"]) == 1:
        said += " With one seed this is about this trained model; another training of the same arm may differ."
    return said


def _range(ends: Mapping[str, float | None]) -> str:
    """A mean and its interval: two digits of its width."""
    values = [ends["mean"], ends["low"], ends["high"]]
    if None in values:
        return "undefined"
    mean, low, high = (float(value or 0.0) for value in values)
    width = max(high - low, 1e-12)
    places = max(0, 1 - math.floor(math.log10(width)))
    if places > 6:
        return f"{mean:.1e} [{low:.1e}, {high:.1e}]"
    return f"{mean:.{places}f} [{low:.{places}f}, {high:.{places}f}]"
