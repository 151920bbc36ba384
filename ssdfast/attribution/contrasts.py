"""Difference in differences: the shift of each arm from the baseline, minus the control's, on the same positions.

Two families of tests, each corrected by Holm over all arms: the metrics over all positions, and three of them in every
group. The largest effects come first. A p-value is about the models at hand; where there are several seeds, the
interval covers them too.

Shape legend: G problems, Z groups of positions, M metrics, X sums, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..statistics import holm
from . import position_groups
from .arm_stats import ArmStats
from .fits import RESIDUAL
from .metrics import METRICS, POSITIONS, ratios
from .mixture_model import COMPONENTS
from .resampling import interval, swap_test

FLIPS = 9_999
TESTED = tuple(name for name in METRICS if name not in ("kl_base_trained", "ssd_alignment"))
"""over all positions"""
TESTED_IN_GROUPS = ("kl_trained_base", "ssd_variance_fraction", "ssd_strength")
_FAMILIES = ("metrics", "groups")


def compare_with_control(
    arms: Mapping[str, ArmStats], control: str, names: Sequence[position_groups.Name], seed: int
) -> dict[str, dict[str, Any]]:
    """For every other arm `metrics` and `groups`, lists of tests with the largest effects first; `components`, each
    component and the residual beyond the control's; and `drop_one`, the loss of joint gain without a component beyond
    the control's, in nats per position. JSON.
    """
    control_arm = arms[control]
    comparisons: dict[str, dict[str, Any]] = {}
    for name, arm in arms.items():
        if name != control:
            rng = np.random.default_rng((seed, len(comparisons)))
            tests = _tests(arm, control_arm, names, rng)
            comparisons[name] = {
                "metrics": [test for test in tests if test["group_kind"] == "all"],
                "groups": [test for test in tests if test["group_kind"] != "all"],
                **_components(arm, control_arm),
            }
    for family in _FAMILIES:
        tests = [test for arm in comparisons.values() for test in arm[family] if test["p_value"] is not None]
        corrected = holm([test["p_value"] for test in tests]) if tests else ()
        for test, p_value in zip(tests, corrected, strict=True):
            test["p_value_holm"] = float(p_value)
    for comparison in comparisons.values():
        for family in _FAMILIES:
            comparison[family].sort(key=lambda test: -abs(test["effect_size_sd"] or 0))
    return comparisons


def _tests(
    arm: ArmStats, control: ArmStats, names: Sequence[position_groups.Name], rng: np.random.Generator
) -> list[dict[str, Any]]:
    pairs = [
        (z, METRICS.index(metric))
        for z, (kind, _) in enumerate(names)
        for metric in (TESTED if kind == "all" else TESTED_IN_GROUPS)
        if arm.sums_ZW[z, POSITIONS]
    ]
    width = arm.shape[1]
    columns = np.array([[z * width + 2 * m, z * width + 2 * m + 1] for z, m in pairs]).reshape(-1)
    arm_GX, control_GX = arm.problems_GX[:, columns], control.problems_GX[:, columns]
    p_values, difference = swap_test(control_GX, arm_GX, FLIPS, rng)
    sizes = _effect_sizes(control_GX, arm_GX)
    arm_ZM, control_ZM = ratios(arm.sums_ZW), ratios(control.sums_ZW)
    tests = []
    for i, (z, m) in enumerate(pairs):
        difference_R = arm.metrics_RZM[:, z, m] - control.metrics_RZM[:, z, m]
        kind, name = names[z]
        tests.append(
            {
                "group_kind": kind,
                "group": name,
                "metric": METRICS[m],
                "arm": _or_none(arm_ZM[z, m]),
                "control": _or_none(control_ZM[z, m]),
                "difference": interval(difference[i], difference_R),
                "effect_size_sd": _or_none(sizes[i]),
                "p_value": _or_none(p_values[i]),
                "p_value_holm": None,
            }
        )
    return tests


@np.errstate(divide="ignore", invalid="ignore")
def _effect_sizes(first_GX: np.ndarray, second_GX: np.ndarray) -> np.ndarray:
    """The difference of two ratios in standard deviations over problems of what each contributes to it."""
    linear = []
    for sums_GX in (second_GX, first_GX):
        numerator_GM, denominator_GM = sums_GX[:, ::2], sums_GX[:, 1::2]
        ratio_M, mean_M = numerator_GM.sum(0) / denominator_GM.sum(0), denominator_GM.mean(0)
        linear.append(ratio_M + (numerator_GM - ratio_M * denominator_GM) / mean_M)
    difference_GM = linear[0] - linear[1]
    sizes_M: np.ndarray = difference_GM.mean(0) / difference_GM.std(0)
    return sizes_M


def _components(arm: ArmStats, control: ArmStats) -> dict[str, Any]:
    (arm_7, arm_R7), (control_7, control_R7) = arm.components, control.components
    beyond = [interval(arm_7[i] - control_7[i], arm_R7[:, i] - control_R7[:, i]) for i in range(len(arm_7))]
    names = (*COMPONENTS, RESIDUAL)
    return {
        "components": dict(zip(names, beyond[: len(names)], strict=True)),
        "drop_one": dict(zip(COMPONENTS, beyond[len(names) :], strict=True)),
    }


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
