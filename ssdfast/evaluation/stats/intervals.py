"""Intervals of shares: Wilson's where a problem has one sample, a bootstrap over problems where it has several.

    accuracy(gather(problem_N, correct_N))

Everything here is a share, 0 to 1. Problems weigh the same, however many samples each has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..libraries import scipy_stats
from .scores import Outcomes

LEVEL = 0.95
RESAMPLES = 10_000
_BLOCK = 1 << 22  # draws held in memory at a time


@dataclass(frozen=True)
class Interval:
    """An estimate and the range that holds the true value in a share `level` of studies like this one."""

    estimate: float
    low: float
    high: float
    level: float
    method: str
    """"wilson", "bootstrap by problem", or "all problems agree" """


def wilson(successes: int, trials: int, level: float = LEVEL) -> Interval:
    """Wilson's score interval (1927) of a share of independent trials. Raises ValueError for impossible counts."""
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} of {trials} is no share: give 0 to that many successes of at least 1 trial")
    check_level(level)
    found = scipy_stats().binomtest(int(successes), int(trials)).proportion_ci(level, method="wilson")
    return Interval(successes / trials, float(found.low), float(found.high), level, "wilson")


def accuracy(outcomes: Outcomes, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The mean over problems of their mean score.

    With one sample a problem, right or wrong, problems are independent trials and the interval is Wilson's. With
    several, or with scores between, it is a bootstrap over problems.
    """
    if outcomes.samples_P.max() == 1 and np.isin(outcomes.score_N, (0, 1)).all():
        return wilson(int(outcomes.score_N.sum()), len(outcomes.score_N), level)
    return by_problem(outcomes.mean_P, (0.0, 1.0), level, resamples, seed)


def by_problem(
    value_P: np.ndarray,
    scale: tuple[float, float],
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The mean of a value of each problem, whole problems resampled with replacement.

    Percentile bootstrap, its percentiles expanded for few problems: Φ(t √(P/(P-1))) with t the quantile of Student's
    distribution of P-1 degrees (Hesterberg 2015, arXiv 1411.5279, "expanded percentile"); under 5 problems that is all
    that resampling gives, from least to greatest.
    Where all P values are one, resampling sees no variation though unseen problems may differ: the share of those that
    do is at most Wilson's bound for none of P, z²/(P+z²), and they are taken to lie at the ends of `scale`.
    Raises ValueError for fewer than 2 problems.
    """
    check_level(level)
    problems = len(value_P)
    if problems < 2:
        raise ValueError(f"an interval over {problems} problem cannot be had: evaluate at least 2")
    stats = scipy_stats()
    estimate, tail = float(np.mean(value_P)), (1 - level) / 2
    if np.ptp(value_P) == 0:
        z = stats.norm.isf(tail)
        unseen, (lowest, highest) = float(z**2 / (problems + z**2)), scale
        low, high = estimate - unseen * (estimate - lowest), estimate + unseen * (highest - estimate)
        return Interval(estimate, low, high, level, "all problems agree")
    share = float(stats.norm.cdf(stats.t.ppf(tail, problems - 1) * np.sqrt(problems / (problems - 1))))
    low, high = np.quantile(resampled_means(value_P, resamples, seed), (share, 1 - share))
    return Interval(estimate, float(low), float(high), level, "bootstrap by problem")


def resampled_means(value_P: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """float64 [resamples]: means of P values drawn with replacement from `value_P`."""
    rng, problems = np.random.default_rng(seed), len(value_P)
    rows = max(1, _BLOCK // problems)
    return np.concatenate(
        [
            value_P[rng.integers(problems, size=(min(rows, resamples - done), problems), dtype=np.int32)].mean(axis=1)
            for done in range(0, resamples, rows)
        ]
    )


def check_level(level: float) -> None:
    """Raises ValueError unless 0 < level < 1."""
    if not 0 < level < 1:
        raise ValueError(f"a level of {level:g} is no share of studies: give one between 0 and 1, such as 0.95")
