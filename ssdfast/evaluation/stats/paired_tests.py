"""Two arms over the same problems: the difference, its interval and p-value, and what the comparison could have seen.

    print(compare(gather(problem_N, baseline_N), gather(problem_M, trained_M)))

A sweep has many of these: `ssdfast.statistics.holm` adjusts their p-values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..libraries import scipy_stats
from .intervals import LEVEL, RESAMPLES, by_problem
from .power import POWER, detectable
from .scores import Outcomes, check_same_problems

_FEWEST = 5
"""differing problems from which on their variance says what could be seen"""
_BATCH = 500  # resamples of the sign-flip test held in memory at a time


@dataclass(frozen=True)
class Difference:
    """Second arm less first, in percentage points."""

    points: float
    low: float
    high: float
    level: float
    interval: str
    """"bootstrap by problem" or "all problems agree" """
    p: float
    """two-sided, of no difference; it and not the interval is what decides where few problems differ"""
    test: str
    """"exact McNemar" or "sign flips by problem" """
    problems: int
    differing: int
    """problems on which the arms' mean scores are not the same"""
    detectable: float | None
    """the least true difference, in points, that such a comparison sees with a power of 80 % at alpha = 1 - level; None
    where there is none up to 100, or where fewer than 5 problems differ, which show no variance to tell it by"""

    def __str__(self) -> str:
        seen = "nothing to tell it by" if self.detectable is None else f"{self.detectable:.1f} points"
        return (
            f"{self.points:+.1f} points [{self.low:+.1f}, {self.high:+.1f}], p = {self.p:.3g} ({self.test}, "
            f"{self.differing:,} of {self.problems:,} problems differ); detectable: {seen}"
        )


def compare(
    first: Outcomes, second: Outcomes, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """Mean over problems of the difference of the arms' mean scores.

    The interval is a bootstrap over problems. The p-value is McNemar's exact one where every problem has one sample,
    right or wrong, in each arm; otherwise that of flipping the signs of the problems' differences, which is exact
    where the arms are exchangeable.
    Raises ValueError for unequal problems, naming the first that differ, and for fewer than 2.
    """
    check_same_problems(first, second)
    difference_P = second.mean_P - first.mean_P
    share = by_problem(difference_P, (-1.0, 1.0), level, resamples, seed)
    single = all(arm.samples_P.max() == 1 and np.isin(arm.score_N, (0, 1)).all() for arm in (first, second))
    gained, lost = int((difference_P > 0).sum()), int((difference_P < 0).sum())
    deviation = float(np.std(difference_P, ddof=1)) if np.ptp(difference_P) > 0 else None
    least = None if deviation is None else 100 * detectable(deviation, len(difference_P), 1 - level, POWER)
    return Difference(
        points=100 * share.estimate,
        low=100 * share.low,
        high=100 * share.high,
        level=level,
        interval=share.method,
        p=mcnemar(gained, lost) if single else sign_flips(difference_P, resamples, seed),
        test="exact McNemar" if single else "sign flips by problem",
        problems=len(difference_P),
        differing=gained + lost,
        detectable=least if least is not None and least <= 100 and gained + lost >= _FEWEST else None,
    )


def mcnemar(gained: int, lost: int) -> float:
    """The two-sided exact p-value of problems that one arm alone got right against those that the other alone did."""
    return float(scipy_stats().binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def sign_flips(difference_P: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """The two-sided p-value of the differences' sum among those with signs drawn at random (all of them where few).

    At least 1 / (resamples + 1), so that a correction over a sweep never works on a 0.
    """
    moved = difference_P[difference_P != 0]
    if len(moved) < 2:
        return 1.0  # flipping a single one, or none, leaves the size of the sum
    test = scipy_stats().permutation_test(
        (moved,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=_BATCH,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)
