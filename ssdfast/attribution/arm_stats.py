"""The statistics of every arm of a study, each seed by itself, with what every problem contributes.

Shape legend: G problems, Z groups of positions, W sums of a group, M metrics, X statistics, S seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from . import position_groups
from .estimates import Estimates, Interval, intervals, mean, ratio_estimates, sum_by_problem, variance
from .fits import BY_CLASS, KL, PARAMETERS, PARTS, RESIDUAL, Fit, fit, residual_correlation
from .load_probes import ArmProbe
from .metrics import METRICS, POSITIONS
from .mixture_model import COMPONENTS

PARAMETER_NAMES = ("ssd_strength", "temperature", "eos_log_odds")
"""of the joint fit, in the order of COMPONENTS"""


@dataclass(frozen=True)
class ArmStats:
    """The seeds of an arm."""

    seeds: Sequence[ArmProbe]
    fits: Sequence[Fit]
    sums: Sequence[np.ndarray]
    """of each seed [G, Z, W]: sums of the problems"""

    @property
    def fit_estimates(self) -> list[Estimates]:
        """Of each seed, the statistics of its joint fit."""
        return [seed_fit.estimates for seed_fit in self.fits]

    @cached_property
    def metric_estimates(self) -> list[Estimates]:
        """Of each seed, all metrics of all groups, [Z * M]."""
        return [ratio_estimates(sums_GZW[..., :POSITIONS].reshape(len(sums_GZW), -1)) for sums_GZW in self.sums]

    @cached_property
    def positions_Z(self) -> np.ndarray:
        """Positions of each group, a mean over the seeds."""
        positions_Z: np.ndarray = np.mean([sums_GZW[..., POSITIONS].sum(0) for sums_GZW in self.sums], axis=0)
        return positions_Z


def arm_stats(arms: Mapping[str, Sequence[ArmProbe]]) -> dict[str, ArmStats]:
    """Of every arm; all probes have the same traces."""
    traces = next(iter(arms.values()))[0].traces
    problems = {name: i for i, name in enumerate(dict.fromkeys(trace.problem_id for trace in traces))}
    problem_T = np.array([problems[trace.problem_id] for trace in traces])
    return {
        name: ArmStats(
            seeds,
            [fit(seed, problem_T) for seed in seeds],
            [_sum_problems(seed.sums_TGW, problem_T) for seed in seeds],
        )
        for name, seeds in arms.items()
    }


def _sum_problems(sums_TZW: np.ndarray, problem_T: np.ndarray) -> np.ndarray:
    """[G, Z, W]"""
    traces, *shape = sums_TZW.shape
    return sum_by_problem(sums_TZW.reshape(traces, -1), problem_T, int(problem_T.max()) + 1).reshape(-1, *shape)


def describe_groups(arm: ArmStats, names: Sequence[position_groups.Name]) -> list[dict[str, Any]]:
    """Every metric of every group that has positions, with intervals over problems and seeds. JSON."""
    values = iter(intervals(mean(arm.metric_estimates), variance(arm.metric_estimates)))
    entries = []
    for (kind, name), positions in zip(names, arm.positions_Z, strict=True):
        metrics = {metric: next(values) for metric in METRICS}
        if round(positions):
            entries.append({"group_kind": kind, "group": name, "positions": round(positions), **metrics})
    return entries


def describe_shift(arm: ArmStats) -> dict[str, Any]:
    """The joint fit: its parameters, over all positions and by class, and the components of the shift in nats per
    position and as fractions. JSON."""
    value_X, spread = mean(arm.fit_estimates), variance(arm.fit_estimates)
    ends = intervals(value_X, spread)
    fractions = _fractions(arm.fit_estimates)
    return {
        "kl_trained_base": ends[KL],
        **dict(zip(PARAMETER_NAMES, ends[PARAMETERS], strict=True)),
        "by_position_class": _by_class(arm, ends),
        "components": {
            name: {"nats": nats, "fraction": fraction}
            for name, nats, fraction in zip((*COMPONENTS, RESIDUAL), ends[PARTS], fractions, strict=True)
        },
        "residual_seed_correlation": residual_correlation(arm.seeds, arm.fits),
        "by_seed": [
            {"probe": str(arm_probe.probe.directory)}
            | dict(zip(PARAMETER_NAMES, map(float, seed_fit.estimates.value_X[PARAMETERS]), strict=True))
            for arm_probe, seed_fit in zip(arm.seeds, arm.fits, strict=True)
        ],
    }


def _by_class(arm: ArmStats, ends: Sequence[Interval]) -> list[dict[str, Any]]:
    by_class = iter(ends[BY_CLASS])
    entries = []
    for name, positions in zip(position_groups.FIT_CLASSES, arm.fits[0].positions_C, strict=True):
        parameters = {parameter: next(by_class) for parameter in PARAMETER_NAMES}
        if positions:
            entries.append({"position_class": name, "positions": int(positions), **parameters})
    return entries


def _fractions(seeds: Sequence[Estimates]) -> list[Interval]:
    """Each component's nats over all nats, both as means over the seeds."""
    parts = mean(seeds)[PARTS]
    total = parts.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        fraction = parts / total
        linear = [
            Estimates(
                fraction + (seed.value_X[PARTS] - fraction * seed.value_X[PARTS].sum()) / total,
                (seed.influence_GX[:, PARTS] - fraction * seed.influence_GX[:, PARTS].sum(1, keepdims=True)) / total,
            )
            for seed in seeds
        ]
    return intervals(fraction, variance(linear))
