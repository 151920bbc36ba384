"""The arms of a study beside each other: every number with its resamples, and every arm against the control.

Shape legend: G clusters, Z sets, W sums of a set, R resamples, M measures, X sums of a probe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from . import position_groups
from .fits import DRIFT, Fit, fit, reproduced
from .load_probes import Collected
from .metrics import MEASURES, POSITIONS, ratios
from .mixture_model import PARTS
from .resampling import RESAMPLES, clustered, interval, quantiles, resampled, seed_weights


@dataclass(frozen=True)
class Arm:
    """The seeds of an arm, and the sums of each over the same resamples."""

    seeds: Sequence[Collected]
    fits: Sequence[Fit]
    by_problem: Sequence[np.ndarray]
    """of each seed [G, X]: sums of the problems"""
    resampled: Sequence[np.ndarray]
    """of each seed [R, X]: problems drawn"""
    by_trace: Sequence[np.ndarray]
    """of each seed [R, X]: traces drawn"""
    weights_RS: np.ndarray
    shape: tuple[int, int]
    """Z sets and W sums of a set, the first Z * W of X"""

    def _mixed(self, sums: Sequence[np.ndarray]) -> np.ndarray:
        """[R, Z, W]: over the seeds as they are drawn."""
        whole = sum(
            weight_R[:, None] * one[:, : self._cut] for weight_R, one in zip(self.weights_RS.T, sums, strict=True)
        )
        return np.asarray(whole).reshape(RESAMPLES, *self.shape)

    @property
    def _cut(self) -> int:
        return self.shape[0] * self.shape[1]

    @cached_property
    def problems_GX(self) -> np.ndarray:
        """[G, Z * W]: the sums of the problems over all seeds, their mean."""
        found: np.ndarray = np.mean([one[:, : self._cut] for one in self.by_problem], axis=0)
        return found

    @cached_property
    def sums_ZW(self) -> np.ndarray:
        return self.problems_GX.sum(0).reshape(self.shape)

    @cached_property
    def measures_RZM(self) -> np.ndarray:
        return ratios(self._mixed(self.resampled))

    @cached_property
    def measures_by_trace_RZM(self) -> np.ndarray:
        return ratios(self._mixed(self.by_trace))

    @cached_property
    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """([7], [R, 7]): what `Fit.parts` says, and over resamples."""
        return self._over_seeds(Fit.parts)

    @cached_property
    def numbers(self) -> tuple[np.ndarray, np.ndarray]:
        """([3], [R, 3]): s, b and g of the joint fit, and over resamples."""
        return self._over_seeds(Fit.numbers)

    def _over_seeds(self, told: Any) -> tuple[np.ndarray, np.ndarray]:
        value, value_R = 0.0, 0.0
        seeds = len(self.fits)
        for one, problems_GX, sums_RX, weight_R in zip(
            self.fits, self.by_problem, self.resampled, self.weights_RS.T, strict=True
        ):
            value = value + told(one, problems_GX[:, self._cut :].sum(0)) / seeds
            value_R = value_R + weight_R[:, None] * told(one, sums_RX[:, self._cut :]) / seeds
        return np.asarray(value), np.asarray(value_R)


def arms_of(collected: Mapping[str, Sequence[Collected]], seed: int) -> dict[str, Arm]:
    """Every arm's sums over one set of resamples."""
    rng = np.random.default_rng(seed)
    everything = [one for seeds in collected.values() for one in seeds]
    traces = everything[0].traces
    problems = {name: i for i, name in enumerate(dict.fromkeys(trace.problem_id for trace in traces))}
    problem_T = np.array([problems[trace.problem_id] for trace in traces])
    fits = [fit(one) for one in everything]
    shape = everything[0].sums_TGW.shape[1:]
    joined = [
        np.concatenate([one.sums_TGW.reshape(len(traces), -1), its.sums_TX], 1)
        for one, its in zip(everything, fits, strict=True)
    ]
    widths = np.cumsum([one.shape[1] for one in joined])[:-1]
    whole_TX = np.concatenate(joined, 1)
    whole_GX = clustered(whole_TX, problem_T)
    by_problem = np.split(whole_GX, widths, 1)
    over_problems = np.split(resampled(whole_GX, rng), widths, 1)
    over_traces = np.split(resampled(whole_TX, rng), widths, 1)
    found, at = {}, 0
    for name, seeds in collected.items():
        mine = slice(at, at + len(seeds))
        found[name] = Arm(
            seeds, fits[mine], by_problem[mine], over_problems[mine], over_traces[mine],
            seed_weights(len(seeds), rng), (shape[0], shape[1]),
        )  # fmt: skip
        at += len(seeds)
    return found


def pooled(arm: Arm, names: Sequence[position_groups.Name]) -> list[dict[str, Any]]:
    """Every measure of every set that has positions, with intervals from drawing problems and from drawing traces."""
    found = []
    values_ZM = ratios(arm.sums_ZW)
    low_ZM, high_ZM = quantiles(arm.measures_RZM)
    low_by_trace_ZM, high_by_trace_ZM = quantiles(arm.measures_by_trace_RZM)
    for z, (kind, name) in enumerate(names):
        positions = round(arm.sums_ZW[z, POSITIONS])
        if not positions:
            continue
        entry: dict[str, Any] = {"kind": kind, "set": name, "positions": positions}
        for m, measure in enumerate(MEASURES):
            ends = {
                "mean": values_ZM[z, m],
                "low": low_ZM[z, m],
                "high": high_ZM[z, m],
                "low_by_trace": low_by_trace_ZM[z, m],
                "high_by_trace": high_by_trace_ZM[z, m],
            }
            defined = np.isfinite(list(ends.values())).all()
            entry[measure] = {name: float(value) if defined else None for name, value in ends.items()}
        found.append(entry)
    return found


def movement(arm: Arm) -> dict[str, Any]:
    """The joint fit: its numbers, and the parts of the movement in nats a position and as shares."""
    (s, b, g), numbers_R3 = arm.numbers
    parts_7, parts_R7 = arm.parts
    total, total_R = parts_7[:4].sum(), parts_R7[:, :4].sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        share_4, share_R4 = parts_7[:4] / total, parts_R7[:, :4] / total_R[:, None]
        inverse_R = 1 / (1 + numbers_R3[:, 1])
    return {
        "kl": interval(total, total_R),
        "strength": interval(s, numbers_R3[:, 0]),
        "temperature": interval(1 / (1 + b), inverse_R),
        "ending_log_odds": interval(g, numbers_R3[:, 2]),
        "parts": {
            name: {"nats": interval(parts_7[i], parts_R7[:, i]), "share": interval(share_4[i], share_R4[:, i])}
            for i, name in enumerate((*PARTS, DRIFT))
        },
        "drift_reproduced": reproduced(arm.seeds, arm.fits),
        "by_seed": [
            {
                "probe": str(one.probe.directory),
                "strength": float(its.theta[0]),
                "temperature": float(1 / (1 + its.theta[1])),
                "ending_log_odds": float(its.theta[2]),
            }
            for one, its in zip(arm.seeds, arm.fits, strict=True)
        ],
    }
