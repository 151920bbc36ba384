"""The minimum detectable effect of a paired design, from the components of its variance.

    variance = paired_variance(baseline, run)
    PairedDesign(problems=1000, samples=4, variance=variance).minimum_detectable_effect()

Scores are fractions, so effects are fractions (0.05 is 5 percentage points) and variances are squares of fractions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .libraries import statsmodels_stats
from .scores import Scores, check_same_problems

ALPHA = 0.05
POWER = 0.8


@dataclass(frozen=True)
class VarianceComponents:
    """The variance of one sample's score, in two components; `between` is never below 0, see `clipped`."""

    between: float
    """The variance of the problems' true means."""
    within: float
    """The variance of samples of one problem."""
    unclipped_between: float
    """The unbiased estimate, which noise can take below 0."""

    @property
    def clipped(self) -> bool:
        return self.unclipped_between < 0

    @property
    def fraction_between(self) -> float:
        """The fraction of the whole variance that is between problems; NaN where all samples score the same."""
        whole = self.between + self.within
        return self.between / whole if whole else float("nan")


def variance_components(scores: Scores) -> VarianceComponents:
    """One-way analysis of variance, for any numbers of samples (Searle, Casella and McCulloch 1992, 3.6).

    between = (MSB - MSW) / n0, with n0 = (N - Σ n_p² / N) / (P - 1).
    Raises ValueError for a single problem, and where no problem has two samples.
    """
    samples_P, mean_P = scores.samples_P, scores.mean_P
    total, problems = int(samples_P.sum()), len(samples_P)
    if problems < 2:
        raise ValueError("1 problem shows no variance between problems: evaluate at least 2")
    within = _pooled_within(scores)
    mean_square = float(np.sum(samples_P * (mean_P - scores.score_N.mean()) ** 2)) / (problems - 1)
    size = (total - float(np.sum(samples_P**2)) / total) / (problems - 1)
    between = (mean_square - within) / size
    return VarianceComponents(max(between, 0.0), within, between)


@dataclass(frozen=True)
class PairedVariance:
    """The variance components of a paired difference; `interaction` is never below 0, see `clipped`.

    That some problems are harder for both runs cancels, and is in no component.
    """

    interaction: float
    """The variance between problems of the true difference of the runs."""
    within_baseline: float
    within_run: float
    unclipped_interaction: float
    """The unbiased estimate, which noise can take below 0."""

    @property
    def clipped(self) -> bool:
        return self.unclipped_interaction < 0


def paired_variance(baseline: Scores, run: Scores) -> PairedVariance:
    """The components that two runs over the same problems show: Var(d_p) minus the variance of the samples in it.

    Raises ValueError for unequal problems, and where no problem of a run has two samples.
    """
    check_same_problems(baseline, run)
    if len(baseline.samples_P) < 2:
        raise ValueError("1 problem shows no variance between problems: evaluate at least 2")
    within = [_pooled_within(scores) for scores in (baseline, run)]
    noise = sum(
        variance * float(np.mean(1 / scores.samples_P))
        for variance, scores in zip(within, (baseline, run), strict=True)
    )
    interaction = float(np.var(run.mean_P - baseline.mean_P, ddof=1)) - noise
    return PairedVariance(max(interaction, 0.0), within[0], within[1], interaction)


@dataclass(frozen=True)
class PairedDesign:
    """P problems, each with as many samples from one run as from the other.

    The mean difference has the variance (ω² + σ₁²/m + σ₂²/m) / P, with ω² the interaction, σ² the variances within a
    problem and m the samples (Miller 2024, arXiv 2411.00640, section 5); power is that of the two-sided paired t-test
    at that variance.
    """

    problems: int
    samples: int
    """The number of samples per problem, in each run."""
    variance: PairedVariance

    @property
    def deviation(self) -> float:
        """The standard deviation of a problem's difference. Raises ValueError where it is 0: nothing to plan with."""
        variance = self.variance
        square = variance.interaction + (variance.within_baseline + variance.within_run) / self.samples
        if not square > 0:
            raise ValueError("the variance components are all 0: estimate them from runs whose scores vary")
        return float(np.sqrt(square))

    def power(self, effect: float, alpha: float = ALPHA) -> float:
        """The chance of a p-value below alpha where the true difference is `effect`, a fraction."""
        return float(_paired_t().power(effect / self.deviation, self.problems, alpha))

    def minimum_detectable_effect(self, alpha: float = ALPHA, power: float = POWER) -> float:
        """The smallest true difference, a fraction, that is detected with this power."""
        return minimum_detectable_effect(self.deviation, self.problems, alpha, power)


def minimum_detectable_effect(deviation: float, problems: int, alpha: float = ALPHA, power: float = POWER) -> float:
    """The effect that a paired t-test detects with this power; `deviation` is that of the problems' differences."""
    return deviation * float(_paired_t().solve_power(nobs=problems, alpha=alpha, power=power))


def _pooled_within(scores: Scores) -> float:
    freedom_P = scores.samples_P - 1
    if not freedom_P.any():
        raise ValueError(
            "one sample per problem shows no variance within a problem: draw at least 2 samples per problem"
        )
    return float(np.nansum(scores.variance_P * freedom_P) / freedom_P.sum())


def _paired_t() -> Any:
    return statsmodels_stats().TTestPower()
