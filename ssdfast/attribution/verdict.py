"""The verdict on an arm: a category and a paragraph, built from its numbers, with what would change the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..config import SamplingParams
from . import verdict_text
from .power import FEWEST_PROBLEMS
from .verdict_rules import MIN_FRACTION, MIXTURE, NONE, UNDECIDED, Design, is_significant

_LESS_UNEXPLAINED, _MORE_EXPLAINED = 0.03, 1.05
"""by how much other sampling parameters have to explain a shift better: fraction of the shift, and ratio"""


def verdict(
    name: str,
    control: str,
    design: Design,
    shift: Mapping[str, Any],
    comparison: Mapping[str, Any],
    train_sampling: SamplingParams,
) -> dict[str, Any]:
    """`category`, `scope`, `headline`, `components` that are named, `position_classes` where each of them acts,
    `fractions` of the arm's significant shift beyond the control (None without effect), `contradicted_by` (sampling
    parameters that explain the shift better than `train_sampling`, or None), `text`. JSON.

    shift: from `arm_stats.describe_shift`, with the single-component fits. comparison: from
    `contrasts.compare_with_control`. A component is named if it differs from the control's (by Holm at 0.05) and
    explains MIN_FRACTION of what all such components explain beyond the control, or if the fit loses that much without
    it; the second finds a component that opposes another. With fewer than FEWEST_PROBLEMS problems the category is
    `undecided`.
    """
    sizes = {test["component"]: _size(comparison, test["component"]) for test in comparison["tests"]}
    nats = {component: interval["value"] or 0.0 for component, interval in comparison["components"].items()}
    significant = [test["component"] for test in comparison["tests"] if is_significant(test)]
    total = sum(max(nats[component], 0.0) for component in significant)
    named = [
        component for component in significant if sizes[component] > 0 and sizes[component] >= MIN_FRACTION * total
    ]
    category = NONE
    if design.problems < FEWEST_PROBLEMS:
        category, named = UNDECIDED, []
    elif named:
        category = named[0] if len(named) == 1 else MIXTURE
    # A component may oppose the others so much that no nats are left to divide.
    fractions = {
        component: nats[component] / total if named and total > 0 and component in significant else None
        for component in nats
    }
    outcome = {
        "category": category,
        "scope": design.scope,
        "components": named,
        "position_classes": {
            test["component"]: _classes(test.get("by_position_class", ()))
            for test in comparison["tests"]
            if test["component"] in named
        },
        "fractions": fractions,
        "contradicted_by": contradicted_by(shift),
    }
    headline = verdict_text.format_headline(control, outcome, sum(nats.values()) < 0, design)
    text = verdict_text.format_text(f"{name}: {headline}.", control, outcome, design, shift, comparison, train_sampling)
    return {**outcome, "headline": headline, "text": text}


def _classes(tests: Sequence[Mapping[str, Any]]) -> list[str]:
    """The classes where a component differs from the control's, by at least MIN_FRACTION of its largest difference."""
    sizes = {test["position_class"]: abs(test["difference"]["value"]) for test in tests if is_significant(test)}
    least = MIN_FRACTION * max(sizes.values(), default=0.0)
    return [name for name, size in sizes.items() if size >= least]


def contradicted_by(shift: Mapping[str, Any]) -> dict[str, Any] | None:
    """The sampling parameters whose strength alone explains clearly more than all components do at `train_sampling`."""
    fit, residual = shift["single_component_fits"]["truncation"], shift["components"]["residual"]["fraction"]["value"]
    if fit["unexplained_fraction"] is None or residual is None:
        return None
    explained, reached = 1 - residual, 1 - fit["unexplained_fraction"]
    is_better = reached - explained >= _LESS_UNEXPLAINED and reached >= _MORE_EXPLAINED * explained
    return dict(fit) if is_better else None


def _size(comparison: Mapping[str, Any], component: str) -> float:
    """Nats beyond the control's, or those lost without the component, whichever is more."""
    values = [comparison[key].get(component, {}).get("value") for key in ("components", "drop_one")]
    return max((value for value in values if value is not None), default=0.0)
