"""Difference in differences: the shift of each arm from the baseline, minus the control's, on the same positions.

Three families of tests, each corrected by Holm over all arms: the components, which decide the verdict; the metrics
over all positions; and three of them in every group. The classes of a component are a family of their own. Where an arm
or the control has several seeds, tests are about recipes; with one seed each, about these trained models.

Shape legend: Z groups of positions, M metrics, X statistics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..statistics import holm
from . import position_groups
from .arm_stats import PARAMETER_NAMES, ArmStats
from .estimates import Estimates, Variance, intervals, mean, mean_influence, p_value, variance
from .fits import BY_CLASS, DROP_ONE, PARAMETERS, PARTS, RESIDUAL
from .metrics import METRICS
from .mixture_model import COMPONENTS
from .position_groups import FIT_CLASSES
from .power import component_tests, minimum_detectable

TESTED = tuple(name for name in METRICS if name not in ("kl_base_trained", "ssd_alignment"))
"""over all positions"""
TESTED_IN_GROUPS = ("kl_trained_base", "ssd_variance_fraction", "ssd_strength")
_FAMILIES = ("tests", "metrics", "groups")


def compare_with_control(
    arms: Mapping[str, ArmStats], control: str, names: Sequence[position_groups.Name]
) -> dict[str, dict[str, Any]]:
    """For every other arm: `parameters` of the joint fit minus the control's; `components`, each component and the
    residual beyond the control's, and `drop_one`, the loss of joint gain without a component beyond the control's, in
    nats per position; `tests` of each component, with the classes of positions; `metrics` and `groups`, tests with the
    largest effects first. JSON.

    A parameter has `seed_sd`, the standard deviation between trainings of one arm (None with one seed of each), and
    `mde`, the minimum detectable difference at Holm's first step.
    """
    control_arm = arms[control]
    comparisons: dict[str, dict[str, Any]] = {}
    tests = component_tests(len(arms))
    for name, arm in arms.items():
        if name != control:
            metrics = _metric_tests(arm, control_arm, names)
            comparisons[name] = {
                **_components(arm, control_arm, tests),
                "metrics": [test for test in metrics if test["group_kind"] == "all"],
                "groups": [test for test in metrics if test["group_kind"] != "all"],
            }
    for family in _FAMILIES:
        _correct([test for comparison in comparisons.values() for test in comparison[family]])
    for comparison in comparisons.values():
        for family in ("metrics", "groups"):
            comparison[family].sort(key=lambda test: -abs(test["effect_size_sd"] or 0))
    return comparisons


def _correct(tests: Sequence[dict[str, Any]]) -> None:
    """Add `p_value_holm` to the tests of a family."""
    defined = [test for test in tests if test["p_value"] is not None]
    corrected = holm([test["p_value"] for test in defined]) if defined else ()
    for test in tests:
        test["p_value_holm"] = None
    for test, corrected_p in zip(defined, corrected, strict=True):
        test["p_value_holm"] = float(corrected_p)


def _components(arm: ArmStats, control: ArmStats, family_size: int) -> dict[str, Any]:
    difference_X = mean(arm.fit_estimates) - mean(control.fit_estimates)
    spread = variance(arm.fit_estimates, control.fit_estimates)
    ends = intervals(difference_X, spread)
    fits = [*arm.fits, *control.fits]
    weight_CD = np.mean([seed_fit.weight_CD for seed_fit in fits], axis=0)
    positions_C = np.mean([seed_fit.positions_C for seed_fit in fits], axis=0)
    tests = []
    for d, component in enumerate(COMPONENTS):
        columns = range(BY_CLASS.start + d, BY_CLASS.stop, len(COMPONENTS))
        classes = [
            {"position_class": name, "difference": ends[column], "p_value": _p_value(difference_X, spread, [column])}
            for name, column, positions in zip(FIT_CLASSES, columns, positions_C, strict=True)
            if positions
        ]
        _correct(classes)
        tests.append(
            {
                "component": component,
                "parameter": PARAMETER_NAMES[d],
                "p_value": _p_value(difference_X, spread, columns, weight_CD[:, d]),
                "by_position_class": classes,
            }
        )
    residual = PARTS.stop - 1
    tests.append({"component": RESIDUAL, "p_value": _p_value(difference_X, spread, [residual])})
    return {
        "parameters": {
            name: ends[x] | _detectable(spread, x, len(arm.seeds), len(control.seeds), family_size)
            for name, x in zip(PARAMETER_NAMES, range(PARAMETERS.start, PARAMETERS.stop), strict=True)
        },
        "components": dict(zip((*COMPONENTS, RESIDUAL), ends[PARTS], strict=True)),
        "drop_one": dict(zip(COMPONENTS, ends[DROP_ONE], strict=True)),
        "tests": tests,
    }


def _detectable(spread: Variance, x: int, seeds: int, control_seeds: int, tests: int) -> dict[str, float | None]:
    """`seed_sd` and `mde` of a statistic."""
    seed_variance, problem_variance = float(spread.seeds_X[x]), float(spread.problems_X[x])
    seed_sd = math.sqrt(seed_variance / (1 / seeds + 1 / control_seeds)) if spread.seeds else None
    mde = None
    if math.isfinite(seed_variance + problem_variance):
        counts = (seeds, control_seeds)
        mde = minimum_detectable(seed_variance, counts, problem_variance, spread.problem_freedom + 1, tests)
    return {"seed_sd": seed_sd, "mde": mde}


def _p_value(
    difference_X: np.ndarray, spread: Variance, columns: Sequence[int], weights: np.ndarray | float = 1.0
) -> float | None:
    weight_X = np.zeros(len(difference_X))
    weight_X[list(columns)] = weights
    return p_value(difference_X, spread, weight_X)


def _metric_tests(arm: ArmStats, control: ArmStats, names: Sequence[position_groups.Name]) -> list[dict[str, Any]]:
    arm_X, control_X = mean(arm.metric_estimates), mean(control.metric_estimates)
    spread = variance(arm.metric_estimates, control.metric_estimates)
    ends = intervals(arm_X - control_X, spread)
    sizes_X = _effect_sizes(arm.metric_estimates, control.metric_estimates)
    p_X = spread.p_value_X((arm_X - control_X) ** 2)
    tests = []
    for z, (kind, name) in enumerate(names):
        if not (arm.positions_Z[z] and control.positions_Z[z]):
            continue
        for metric in TESTED if kind == "all" else TESTED_IN_GROUPS:
            x = z * len(METRICS) + METRICS.index(metric)
            tests.append(
                {
                    "group_kind": kind,
                    "group": name,
                    "metric": metric,
                    "arm": _or_none(arm_X[x]),
                    "control": _or_none(control_X[x]),
                    "difference": ends[x],
                    "effect_size_sd": _or_none(sizes_X[x]),
                    "p_value": _or_none(p_X[x]),
                }
            )
    return tests


@np.errstate(divide="ignore", invalid="ignore")
def _effect_sizes(arm: Sequence[Estimates], control: Sequence[Estimates]) -> np.ndarray:
    """The difference in standard deviations over problems of what each contributes to it."""
    influence_GX = mean_influence(arm) - mean_influence(control)
    sizes_X: np.ndarray = (mean(arm) - mean(control)) / (len(influence_GX) * influence_GX.std(0))
    return sizes_X


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
