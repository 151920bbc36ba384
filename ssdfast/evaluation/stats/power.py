"""The minimum detectable effect of a paired design, from the components of its variance.

    variance = paired_variance(baseline, run)
    PairedDesign(problems=1000, samples=4, variance=variance).minimum_detectable_effect()
    planned_mde_pp(problems=1000, samples=4)     # before any data

Its power is that of the test that decides: McNemar's exact one for single samples, and for several the sign flips',
which is that of the paired t-test. Scores are fractions, so effects are fractions (0.05 is 5 percentage points) and
variances are squares of fractions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .detectable import DifferenceVariance, discordant_at, mcnemar_power, smallest_detectable, t_test_power
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

    That some problems are harder for both runs cancels: `between` matters only for what an effect adds.
    """

    interaction: float
    """The variance between problems of the true difference of the runs."""
    within_baseline: float
    within_run: float
    unclipped_interaction: float
    """The unbiased estimate, which noise can take below 0."""
    between: float
    """The variance between problems of the baseline's true means."""
    accuracy: float
    """The baseline's, which leaves room for an effect."""

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
    return PairedVariance(
        interaction=max(interaction, 0.0),
        within_baseline=within[0],
        within_run=within[1],
        unclipped_interaction=interaction,
        between=variance_components(baseline).between,
        accuracy=float(baseline.mean_P.mean()),
    )


@dataclass(frozen=True)
class PairedDesign:
    """P problems, each with as many samples from one run as from the other.

    Without an effect, the mean difference has the variance (ω² + σ₁²/m + σ₂²/m) / P, with ω² the interaction, σ² the
    variances within a problem and m the samples (Miller 2024, arXiv 2411.00640, section 5). What an effect adds is in
    `detectable`. With several samples, power is that of the two-sided paired t-test. With single samples, correct or
    incorrect, P times that variance is the number of discordant problems, and power is that of McNemar's exact test.
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
        """The chance of a p-value of at most alpha where the true difference is `effect`, a fraction.

        Raises ValueError for an effect that the accuracy leaves no room for.
        """
        variance, square = self.variance, self.deviation**2
        if self.samples == 1:
            discordant = discordant_at(effect, min(square, 1.0), variance.accuracy)
            return mcnemar_power(effect, discordant, self.problems, alpha)
        mean_variance = variance.between + variance.within_baseline / self.samples
        difference = DifferenceVariance(square, mean_variance, variance.accuracy, self.samples)
        return t_test_power(effect, difference, self.problems, alpha)

    def minimum_detectable_effect(self, alpha: float = ALPHA, power: float = POWER) -> float | None:
        """The smallest true difference, a fraction, that is detected with this power; None where there is none."""
        return smallest_detectable(lambda effect: self.power(effect, alpha), self.variance.accuracy, power)


def planned_mde_pp(
    problems: int,
    samples: int,
    accuracy: float = 0.5,
    icc: float = 0.6,
    changed: float = 0.1,
    alpha: float = ALPHA,
    power: float = POWER,
) -> float | None:
    """The minimum detectable effect in percentage points of a comparison that has no data yet; None where no effect is.

    accuracy: the baseline's expected accuracy; ½ makes the variance largest.
    icc: the fraction of a sample's variance that lies between problems. It lies mostly between 0.3 and 0.8; lower
    values give a larger effect.
    changed: the fraction of problems on which the run's chance of a correct answer is unrelated to the baseline's, all
    others keeping theirs.
    Raises ValueError for fewer than 2 problems or 1 sample, an accuracy outside (0, 1) and fractions outside [0, 1].
    """
    if problems < 2 or samples < 1 or not 0 < accuracy < 1 or not (0 <= icc <= 1 and 0 <= changed <= 1):
        raise ValueError(
            f"there is no comparison of {problems} problems with {samples} samples each, an accuracy of {accuracy:g}, "
            f"an icc of {icc:g} and {changed:g} of the problems changed: give at least 2 problems and 1 sample, an "
            "accuracy in (0, 1), and fractions in [0, 1]"
        )
    whole = accuracy * (1 - accuracy)
    interaction, within = 2 * changed * icc * whole, (1 - icc) * whole
    variance = PairedVariance(interaction, within, within, interaction, icc * whole, accuracy)
    effect = PairedDesign(problems, samples, variance).minimum_detectable_effect(alpha, power)
    return None if effect is None else 100 * effect


def _pooled_within(scores: Scores) -> float:
    freedom_P = scores.samples_P - 1
    if not freedom_P.any():
        raise ValueError(
            "one sample per problem shows no variance within a problem: draw at least 2 samples per problem"
        )
    return float(np.nansum(scores.variance_P * freedom_P) / freedom_P.sum())
