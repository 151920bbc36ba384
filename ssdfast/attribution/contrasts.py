"""Difference in differences: how each arm moved from the baseline, less how the control did, on the same positions.

Two families of tests, each corrected by Holm over all arms: the measures of all positions, and three of them in every
set. Effects come first. A p-value is about the models at hand; the interval knows of seeds where there are several.

Shape legend: G problems, Z sets, M measures, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..statistics import holm
from . import position_groups
from .arm_stats import Arm
from .fits import DRIFT
from .metrics import MEASURES, POSITIONS, ratios
from .mixture_model import PARTS
from .resampling import interval, swapped

FLIPS = 9_999
TESTED = tuple(name for name in MEASURES if name not in ("kl_ab", "ssd_alignment"))
"""over all positions"""
TESTED_IN_SETS = ("kl_ba", "ssd_share", "ssd_strength")


def against_control(
    arms: Mapping[str, Arm], control: str, names: Sequence[position_groups.Name], seed: int
) -> dict[str, dict[str, Any]]:
    """For every other arm `measures` and `sets`, lists of tests with the largest effects first; `parts`, what each
    part of the movement and drift have beyond the control's, and `lost_without`, what the joint gain loses without a
    part beyond what the control's does, in nats a position. JSON.
    """
    base = arms[control]
    found: dict[str, dict[str, Any]] = {}
    for name, arm in arms.items():
        if name != control:
            rng = np.random.default_rng((seed, len(found)))
            tests = _tests(arm, base, names, rng)
            found[name] = {
                "measures": [test for test in tests if test["kind"] == "all"],
                "sets": [test for test in tests if test["kind"] != "all"],
                **_parts(arm, base),
            }
    for family in ("measures", "sets"):
        tests = [test for one in found.values() for test in one[family] if test["p"] is not None]
        for test, p in zip(tests, holm([test["p"] for test in tests]) if tests else (), strict=True):
            test["p_holm"] = float(p)
    for one in found.values():
        for family in ("measures", "sets"):
            one[family].sort(key=lambda test: -abs(test["size"] or 0))
    return found


def _tests(
    arm: Arm, base: Arm, names: Sequence[position_groups.Name], rng: np.random.Generator
) -> list[dict[str, Any]]:
    wanted = [
        (z, MEASURES.index(measure))
        for z, (kind, _) in enumerate(names)
        for measure in (TESTED if kind == "all" else TESTED_IN_SETS)
        if arm.sums_ZW[z, POSITIONS]
    ]
    width = arm.shape[1]
    columns = np.array([[z * width + 2 * m, z * width + 2 * m + 1] for z, m in wanted]).reshape(-1)
    mine_GX, theirs_GX = arm.problems_GX[:, columns], base.problems_GX[:, columns]
    p, difference = swapped(theirs_GX, mine_GX, FLIPS, rng)
    size = _sizes(theirs_GX, mine_GX)
    values_ZM, control_ZM = ratios(arm.sums_ZW), ratios(base.sums_ZW)
    found = []
    for i, (z, m) in enumerate(wanted):
        over_R = arm.measures_RZM[:, z, m] - base.measures_RZM[:, z, m]
        kind, name = names[z]
        found.append(
            {
                "kind": kind,
                "set": name,
                "measure": MEASURES[m],
                "arm": _or_none(values_ZM[z, m]),
                "control": _or_none(control_ZM[z, m]),
                "difference": interval(difference[i], over_R),
                "size": _or_none(size[i]),
                "p": _or_none(p[i]),
                "p_holm": None,
            }
        )
    return found


@np.errstate(divide="ignore", invalid="ignore")
def _sizes(first_GX: np.ndarray, second_GX: np.ndarray) -> np.ndarray:
    """The difference of two ratios in standard deviations over problems of what each contributes to it."""
    linear = []
    for sums_GX in (second_GX, first_GX):
        over_GM, under_GM = sums_GX[:, ::2], sums_GX[:, 1::2]
        ratio_M, mean_M = over_GM.sum(0) / under_GM.sum(0), under_GM.mean(0)
        linear.append(ratio_M + (over_GM - ratio_M * under_GM) / mean_M)
    difference_GM = linear[0] - linear[1]
    found: np.ndarray = difference_GM.mean(0) / difference_GM.std(0)
    return found


def _parts(arm: Arm, base: Arm) -> dict[str, Any]:
    (mine_7, mine_R7), (theirs_7, theirs_R7) = arm.parts, base.parts
    beyond = [interval(mine_7[i] - theirs_7[i], mine_R7[:, i] - theirs_R7[:, i]) for i in range(len(mine_7))]
    names = (*PARTS, DRIFT)
    return {
        "parts": dict(zip(names, beyond[: len(names)], strict=True)),
        "lost_without": dict(zip(PARTS, beyond[len(names) :], strict=True)),
    }


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
