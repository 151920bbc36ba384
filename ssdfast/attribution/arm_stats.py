"""The statistics of every arm of a study, over one set of resamples.

Shape legend: G clusters, Z groups of positions, W sums of a group, R resamples, M metrics, X sums of a probe, S seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from . import position_groups
from .fits import RESIDUAL, Fit, fit, residual_correlation
from .load_probes import ArmProbe
from .metrics import METRICS, POSITIONS, ratios
from .mixture_model import COMPONENTS
from .resampling import RESAMPLES, interval, quantiles, resample, seed_weights, sum_clusters


@dataclass(frozen=True)
class ArmStats:
    """The seeds of an arm, and the sums of each over the same resamples."""

    seeds: Sequence[ArmProbe]
    fits: Sequence[Fit]
    by_problem: Sequence[np.ndarray]
    """of each seed [G, X]: sums of the problems"""
    problem_resamples: Sequence[np.ndarray]
    """of each seed [R, X]: resamples of problems"""
    trace_resamples: Sequence[np.ndarray]
    """of each seed [R, X]: resamples of traces"""
    weights_RS: np.ndarray
    shape: tuple[int, int]
    """Z groups and W sums of a group, the first Z * W of X"""

    def _weighted(self, sums: Sequence[np.ndarray]) -> np.ndarray:
        """[R, Z, W]: over the seeds of each resample."""
        total = sum(
            weight_R[:, None] * sums_RX[:, : self._width]
            for weight_R, sums_RX in zip(self.weights_RS.T, sums, strict=True)
        )
        return np.asarray(total).reshape(RESAMPLES, *self.shape)

    @property
    def _width(self) -> int:
        return self.shape[0] * self.shape[1]

    @cached_property
    def problems_GX(self) -> np.ndarray:
        """[G, Z * W]: the sums of the problems, a mean over the seeds."""
        mean_GX: np.ndarray = np.mean([sums_GX[:, : self._width] for sums_GX in self.by_problem], axis=0)
        return mean_GX

    @cached_property
    def sums_ZW(self) -> np.ndarray:
        return self.problems_GX.sum(0).reshape(self.shape)

    @cached_property
    def metrics_RZM(self) -> np.ndarray:
        return ratios(self._weighted(self.problem_resamples))

    @cached_property
    def metrics_by_trace_RZM(self) -> np.ndarray:
        return ratios(self._weighted(self.trace_resamples))

    @cached_property
    def components(self) -> tuple[np.ndarray, np.ndarray]:
        """([7], [R, 7]): `Fit.components`, and over resamples."""
        return self._over_seeds(Fit.components)

    @cached_property
    def parameters(self) -> tuple[np.ndarray, np.ndarray]:
        """([3], [R, 3]): s, b and g of the joint fit, and over resamples."""
        return self._over_seeds(Fit.parameters)

    def _over_seeds(self, statistic: Any) -> tuple[np.ndarray, np.ndarray]:
        value, value_R = 0.0, 0.0
        seeds = len(self.fits)
        for seed_fit, problems_GX, sums_RX, weight_R in zip(
            self.fits, self.by_problem, self.problem_resamples, self.weights_RS.T, strict=True
        ):
            value = value + statistic(seed_fit, problems_GX[:, self._width :].sum(0)) / seeds
            value_R = value_R + weight_R[:, None] * statistic(seed_fit, sums_RX[:, self._width :]) / seeds
        return np.asarray(value), np.asarray(value_R)


def arm_stats(arms: Mapping[str, Sequence[ArmProbe]], seed: int) -> dict[str, ArmStats]:
    """Every arm's sums over one set of resamples."""
    rng = np.random.default_rng(seed)
    probes = [arm_probe for seeds in arms.values() for arm_probe in seeds]
    traces = probes[0].traces
    problems = {name: i for i, name in enumerate(dict.fromkeys(trace.problem_id for trace in traces))}
    problem_T = np.array([problems[trace.problem_id] for trace in traces])
    fits = [fit(arm_probe) for arm_probe in probes]
    shape = probes[0].sums_TGW.shape[1:]
    sums = [
        np.concatenate([arm_probe.sums_TGW.reshape(len(traces), -1), probe_fit.sums_TX], 1)
        for arm_probe, probe_fit in zip(probes, fits, strict=True)
    ]
    bounds = np.cumsum([sums_TX.shape[1] for sums_TX in sums])[:-1]
    all_TX = np.concatenate(sums, 1)
    all_GX = sum_clusters(all_TX, problem_T)
    by_problem = np.split(all_GX, bounds, 1)
    problem_resamples = np.split(resample(all_GX, rng), bounds, 1)
    trace_resamples = np.split(resample(all_TX, rng), bounds, 1)
    stats, start = {}, 0
    for name, seeds in arms.items():
        own = slice(start, start + len(seeds))
        stats[name] = ArmStats(
            seeds, fits[own], by_problem[own], problem_resamples[own], trace_resamples[own],
            seed_weights(len(seeds), rng), (shape[0], shape[1]),
        )  # fmt: skip
        start += len(seeds)
    return stats


def describe_groups(arm: ArmStats, names: Sequence[position_groups.Name]) -> list[dict[str, Any]]:
    """Every metric of every group that has positions, with intervals from resampling problems and traces."""
    entries = []
    values_ZM = ratios(arm.sums_ZW)
    low_ZM, high_ZM = quantiles(arm.metrics_RZM)
    low_by_trace_ZM, high_by_trace_ZM = quantiles(arm.metrics_by_trace_RZM)
    for z, (kind, name) in enumerate(names):
        positions = round(arm.sums_ZW[z, POSITIONS])
        if not positions:
            continue
        entry: dict[str, Any] = {"group_kind": kind, "group": name, "positions": positions}
        for m, metric in enumerate(METRICS):
            numbers = {
                "value": values_ZM[z, m],
                "ci_low": low_ZM[z, m],
                "ci_high": high_ZM[z, m],
                "ci_low_by_trace": low_by_trace_ZM[z, m],
                "ci_high_by_trace": high_by_trace_ZM[z, m],
            }
            defined = np.isfinite(list(numbers.values())).all()
            entry[metric] = {key: float(value) if defined else None for key, value in numbers.items()}
        entries.append(entry)
    return entries


def describe_shift(arm: ArmStats) -> dict[str, Any]:
    """The joint fit: its parameters, and the components of the shift in nats per position and as fractions."""
    (s, b, g), parameters_R3 = arm.parameters
    components_7, components_R7 = arm.components
    total, total_R = components_7[:4].sum(), components_R7[:, :4].sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        fraction_4, fraction_R4 = components_7[:4] / total, components_R7[:, :4] / total_R[:, None]
        temperature_R = 1 / (1 + parameters_R3[:, 1])
    return {
        "kl_trained_base": interval(total, total_R),
        "ssd_strength": interval(s, parameters_R3[:, 0]),
        "temperature": interval(1 / (1 + b), temperature_R),
        "eos_log_odds": interval(g, parameters_R3[:, 2]),
        "components": {
            name: {
                "nats": interval(components_7[i], components_R7[:, i]),
                "fraction": interval(fraction_4[i], fraction_R4[:, i]),
            }
            for i, name in enumerate((*COMPONENTS, RESIDUAL))
        },
        "residual_seed_correlation": residual_correlation(arm.seeds, arm.fits),
        "by_seed": [
            {
                "probe": str(arm_probe.probe.directory),
                "ssd_strength": float(seed_fit.theta[0]),
                "temperature": float(1 / (1 + seed_fit.theta[1])),
                "eos_log_odds": float(seed_fit.theta[2]),
            }
            for arm_probe, seed_fit in zip(arm.seeds, arm.fits, strict=True)
        ],
    }
