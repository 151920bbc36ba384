"""Two runs over the same problems: the difference, its interval and p-value, and the minimum detectable effect.

    print(compare(gather_scores(problem_N, baseline_N), gather_scores(problem_M, trained_M)))

A sweep has many of these: `ssdfast.statistics.holm` adjusts their p-values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .detectable import (
    DifferenceVariance,
    denoised,
    discordant_at,
    discordant_without_effect,
    mcnemar_power,
    smallest_detectable,
    t_test_power,
)
from .intervals import LEVEL, Interval, is_single
from .libraries import scipy_stats
from .paired_intervals import paired_difference
from .power import POWER
from .scores import Scores, check_same_problems

RESAMPLES = 10_000
_FEWEST = 5
"""The discordant problems from which on their number or variance determines a minimum detectable effect."""
_BATCH = 500  # resamples of the sign-flip test held in memory at a time


@dataclass(frozen=True)
class PairedComparison:
    """A run minus its baseline."""

    difference_pp: Interval
    """In percentage points."""
    p_value: float
    """Two-sided, of no difference. Where few problems are discordant it decides, and not the interval."""
    test: str
    """ "exact McNemar" or "sign flips by problem"."""
    problems: int
    num_discordant: int
    """The problems on which the runs' mean scores differ."""
    mde_pp: float | None
    """The minimum detectable effect in percentage points: the smallest true improvement that such a comparison detects
    with a power of 80 % at alpha = 1 - level, or the smallest loss where no improvement has that power. None where no
    loss has it either, and where fewer than 5 problems are discordant and show too little to compute it from."""

    def __str__(self) -> str:
        detectable = "unknown" if self.mde_pp is None else f"{self.mde_pp:.1f} percentage points"
        difference = self.difference_pp
        return (
            f"{difference.value:+.1f} percentage points [{difference.ci_low:+.1f}, {difference.ci_high:+.1f}], "
            f"p = {self.p_value:.3g} ({self.test}, {self.num_discordant:,} of {self.problems:,} problems discordant); "
            f"minimum detectable effect: {detectable}"
        )


def compare(
    baseline: Scores, run: Scores, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> PairedComparison:
    """The mean over problems of the difference of the runs' mean scores.

    The p-value is McNemar's exact one where every problem has one sample, correct or incorrect, in each run; otherwise
    that of flipping the signs of the problems' differences, which is exact where the runs are exchangeable. The minimum
    detectable effect is that of the same test; `detectable` says what is assumed. The interval is `paired_difference`.
    Raises ValueError for unequal problems, naming the first that differ, and for fewer than 2.
    """
    check_same_problems(baseline, run)
    difference_P = run.mean_P - baseline.mean_P
    fraction = paired_difference(baseline, run, level)
    single = is_single(baseline) and is_single(run)
    problems, gained, lost = len(difference_P), int((difference_P > 0).sum()), int((difference_P < 0).sum())
    effect = _detectable(baseline, run, single, 1 - level) if gained + lost >= _FEWEST else None
    return PairedComparison(
        difference_pp=Interval(
            100 * fraction.value, 100 * fraction.ci_low, 100 * fraction.ci_high, level, fraction.ci_method
        ),
        p_value=mcnemar(gained, lost) if single else sign_flips(difference_P, resamples, seed),
        test="exact McNemar" if single else "sign flips by problem",
        problems=problems,
        num_discordant=gained + lost,
        mde_pp=None if effect is None else 100 * effect,
    )


def _detectable(baseline: Scores, run: Scores, single: bool, alpha: float) -> float | None:
    """The minimum detectable effect of the test that decides, a fraction."""
    problems, accuracy = len(run.mean_P), float(baseline.mean_P.mean())
    difference_P = run.mean_P - baseline.mean_P
    if single:
        gained, lost = int((difference_P > 0).sum()), int((difference_P < 0).sum())
        discordant = discordant_without_effect(gained, lost, problems, accuracy)
        return smallest_detectable(
            lambda effect: mcnemar_power(effect, discordant_at(effect, discordant, accuracy), problems, alpha),
            accuracy,
            POWER,
        )
    variance, mean = float(np.var(difference_P, ddof=1)), float(difference_P.mean())
    samples = 1 / float(np.mean(1 / run.samples_P))
    observed = DifferenceVariance(variance, float(np.var(baseline.mean_P, ddof=1)), accuracy, samples)
    room = 1 - accuracy if mean > 0 else accuracy
    effect = denoised(mean, variance / problems)
    difference = observed.without(effect) if abs(effect) < room else observed
    return smallest_detectable(lambda effect: t_test_power(effect, difference, problems, alpha), accuracy, POWER)


def mcnemar(gained: int, lost: int) -> float:
    """McNemar's two-sided exact p-value, from the problems that only one run and only the other got right."""
    return float(scipy_stats().binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def sign_flips(difference_P: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """The two-sided p-value of the differences' sum among those with signs drawn at random (all of them where few).

    It is at least 1 / (resamples + 1), so that a correction over a sweep never works on a 0.
    """
    nonzero = difference_P[difference_P != 0]
    if len(nonzero) < 2:
        return 1.0  # flipping a single one, or none, leaves the size of the sum
    test = scipy_stats().permutation_test(
        (nonzero,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=_BATCH,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)
