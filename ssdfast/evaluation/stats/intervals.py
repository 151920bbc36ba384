"""Intervals of fractions: Wilson's where a problem has one sample, a bootstrap over problems where it has several.

    accuracy(gather_scores(problem_N, correct_N))

Everything here is a fraction, 0 to 1. Problems weigh the same, however many samples each has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...statistics import bootstrap_means
from .libraries import scipy_stats
from .scores import Scores

LEVEL = 0.95
RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval, which holds the true value in a fraction `ci_level` of such studies."""

    value: float
    ci_low: float
    ci_high: float
    ci_level: float
    ci_method: str
    """ "wilson", "bootstrap by problem", "all problems agree", or "repeated" (of a sequential test)."""


def wilson(successes: int, trials: int, level: float = LEVEL) -> Interval:
    """Wilson's score interval (1927) of a fraction of independent trials. Raises ValueError for impossible counts."""
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(
            f"{successes} of {trials} is not a fraction: give at least 1 trial, and successes from 0 to the trials"
        )
    check_level(level)
    ends = scipy_stats().binomtest(int(successes), int(trials)).proportion_ci(level, method="wilson")
    return Interval(successes / trials, float(ends.low), float(ends.high), level, "wilson")


def accuracy(scores: Scores, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The mean over problems of their mean score.

    With one sample per problem, each correct or incorrect, problems are independent trials and the interval is
    Wilson's. With several samples, or with scores between 0 and 1, it is a bootstrap over problems.
    """
    if scores.samples_P.max() == 1 and np.isin(scores.score_N, (0, 1)).all():
        return wilson(int(scores.score_N.sum()), len(scores.score_N), level)
    return bootstrap_by_problem(scores.mean_P, (0.0, 1.0), level, resamples, seed)


def bootstrap_by_problem(
    value_P: np.ndarray,
    scale: tuple[float, float],
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The mean of a value of each problem, with whole problems resampled with replacement.

    Percentile bootstrap, its percentiles expanded for few problems: Φ(t √(P/(P-1))) with t the quantile of Student's
    distribution of P-1 degrees (Hesterberg 2015, arXiv 1411.5279, "expanded percentile"); under 5 problems the interval
    is the whole range of the resampled means.
    Where all P values are equal, resampling sees no variation though unseen problems may differ: the fraction of those
    that do is at most Wilson's bound for none of P, z²/(P+z²), and their values are taken to be the ends of `scale`.
    Raises ValueError for fewer than 2 problems.
    """
    check_level(level)
    problems = len(value_P)
    if problems < 2:
        raise ValueError(f"{problems} problem has no interval: evaluate at least 2")
    stats = scipy_stats()
    value, tail = float(np.mean(value_P)), (1 - level) / 2
    if np.ptp(value_P) == 0:
        z = stats.norm.isf(tail)
        unseen, (lowest, highest) = float(z**2 / (problems + z**2)), scale
        low, high = value - unseen * (value - lowest), value + unseen * (highest - value)
        return Interval(value, low, high, level, "all problems agree")
    percentile = float(stats.norm.cdf(stats.t.ppf(tail, problems - 1) * np.sqrt(problems / (problems - 1))))
    means_R = bootstrap_means(value_P, resamples, np.random.default_rng(seed))
    low, high = np.quantile(means_R, (percentile, 1 - percentile))
    return Interval(value, float(low), float(high), level, "bootstrap by problem")


def check_level(level: float) -> None:
    """Raises ValueError unless 0 < level < 1."""
    if not 0 < level < 1:
        raise ValueError(f"a confidence level must be in (0, 1), got a level of {level:g}: give for example 0.95")
