"""How small an effect a paired design can see, from where its variance lies.

    parts = paired_variance(first, second)
    PairedDesign(problems=1000, samples=4, variance=parts).detectable_effect()

Scores are shares, so effects are shares (0.05 is 5 points) and variances are shares squared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..libraries import statsmodels_stats
from .scores import Outcomes, check_same_problems

ALPHA = 0.05
POWER = 0.8


@dataclass(frozen=True)
class VarianceParts:
    """The variance of one sample's score, in two parts; `between` is never under 0, `clipped` tells where it was."""

    between: float
    """of the problems' true means"""
    within: float
    """of samples of one problem"""
    unclipped_between: float
    """the unbiased estimate, which noise can take under 0"""

    @property
    def clipped(self) -> bool:
        return self.unclipped_between < 0

    @property
    def share_between(self) -> float:
        """Of the whole variance; NaN where all samples score the same."""
        whole = self.between + self.within
        return self.between / whole if whole else float("nan")


def split_variance(outcomes: Outcomes) -> VarianceParts:
    """The parts by one-way analysis of variance, for any numbers of samples (Searle, Casella and McCulloch 1992, 3.6).

    between = (MSB - MSW) / n0, with n0 = (N - Σ n_p² / N) / (P - 1).
    Raises ValueError for a single problem, and where no problem has two samples.
    """
    samples_P, mean_P = outcomes.samples_P, outcomes.mean_P
    total, problems = int(samples_P.sum()), len(samples_P)
    if problems < 2:
        raise ValueError("the variance between problems cannot be had from 1 problem: evaluate at least 2")
    within = _pooled_within(outcomes)
    mean_square = float(np.sum(samples_P * (mean_P - outcomes.score_N.mean()) ** 2)) / (problems - 1)
    size = (total - float(np.sum(samples_P**2)) / total) / (problems - 1)
    between = (mean_square - within) / size
    return VarianceParts(max(between, 0.0), within, between)


@dataclass(frozen=True)
class PairedVariance:
    """Where the variance of a paired difference comes from; no part is under 0, `clipped` tells where one was.

    What the arms share, that some problems are harder, cancels and is in none of the parts.
    """

    interaction: float
    """between problems, of the true difference of the arms on each"""
    within_first: float
    within_second: float
    unclipped_interaction: float

    @property
    def clipped(self) -> bool:
        return self.unclipped_interaction < 0


def paired_variance(first: Outcomes, second: Outcomes) -> PairedVariance:
    """The parts as two arms over the same problems show them: Var(d_p) less the samples' share of it.

    Raises ValueError for unequal problems, and where no problem of an arm has two samples.
    """
    check_same_problems(first, second)
    if len(first.samples_P) < 2:
        raise ValueError("the variance between problems cannot be had from 1 problem: evaluate at least 2")
    within = [_pooled_within(arm) for arm in (first, second)]
    noise = sum(part * float(np.mean(1 / arm.samples_P)) for part, arm in zip(within, (first, second), strict=True))
    interaction = float(np.var(second.mean_P - first.mean_P, ddof=1)) - noise
    return PairedVariance(max(interaction, 0.0), within[0], within[1], interaction)


@dataclass(frozen=True)
class PairedDesign:
    """P problems, each with as many samples from one arm as from the other.

    The mean difference has the variance (ω² + σ₁²/m + σ₂²/m) / P, with ω² the interaction, σ² the parts within and m
    the samples (Miller 2024, arXiv 2411.00640, section 5); power is that of the two-sided paired t-test at that
    variance.
    """

    problems: int
    samples: int
    """of a problem, in each arm"""
    variance: PairedVariance

    @property
    def deviation(self) -> float:
        """The standard deviation of a problem's difference. Raises ValueError where it is 0: nothing to plan with."""
        parts = self.variance
        square = parts.interaction + (parts.within_first + parts.within_second) / self.samples
        if not square > 0:
            raise ValueError("the parts of the variance are all 0: estimate them from arms whose scores vary")
        return float(np.sqrt(square))

    def power(self, effect: float, alpha: float = ALPHA) -> float:
        """The chance of a p-value under alpha where the true difference is `effect`, a share."""
        return float(_paired_t().power(effect / self.deviation, self.problems, alpha))

    def detectable_effect(self, alpha: float = ALPHA, power: float = POWER) -> float:
        """The least true difference, a share, that is seen with this power."""
        return detectable(self.deviation, self.problems, alpha, power)


def detectable(deviation: float, problems: int, alpha: float = ALPHA, power: float = POWER) -> float:
    """The effect that a paired t-test sees with this power; `deviation` is that of the problems' differences."""
    return deviation * float(_paired_t().solve_power(nobs=problems, alpha=alpha, power=power))


def _pooled_within(outcomes: Outcomes) -> float:
    freedom_P = outcomes.samples_P - 1
    if not freedom_P.any():
        raise ValueError(
            "the variance within a problem cannot be had from one sample of each: draw at least 2 samples a problem"
        )
    return float(np.nansum(outcomes.variance_P * freedom_P) / freedom_P.sum())


def _paired_t() -> Any:
    return statsmodels_stats().TTestPower()
