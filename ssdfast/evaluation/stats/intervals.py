"""Intervals of fractions: Wilson's, with as many trials as the samples of the problems are worth.

    accuracy(gather_scores(problem_N, correct_N))

Everything here is a fraction, 0 to 1. Problems weigh the same, however many samples each has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .correlation import intraclass_correlation
from .libraries import scipy_stats
from .scores import Scores

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval, which holds the true value in a fraction `ci_level` of such studies."""

    value: float
    ci_low: float
    ci_high: float
    ci_level: float
    ci_method: str
    """ "wilson", "wilson by problem", "mover by problem", "bonett-price", or "repeated" (of a sequential test)."""


def wilson(successes: int, trials: int, level: float = LEVEL) -> Interval:
    """Wilson's score interval (1927) of a fraction of independent trials. Raises ValueError for impossible counts."""
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(
            f"{successes} of {trials} is not a fraction: give at least 1 trial, and successes from 0 to the trials"
        )
    check_level(level)
    ends = scipy_stats().binomtest(int(successes), int(trials)).proportion_ci(level, method="wilson")
    return Interval(successes / trials, float(ends.low), float(ends.high), level, "wilson")


def accuracy(scores: Scores, level: float = LEVEL) -> Interval:
    """The mean over problems of their mean score.

    With one sample per problem, each correct or incorrect, problems are independent trials and the interval is
    Wilson's. With several samples, or with scores between 0 and 1, it is `wilson_by_problem`.
    """
    return accuracy_and_worth(scores, level)[0]


def accuracy_and_worth(scores: Scores, level: float = LEVEL) -> tuple[Interval, float]:
    """`accuracy`, and the number of independent correct or incorrect samples that it rests on."""
    if is_single(scores):
        samples = len(scores.score_N)
        return wilson(int(scores.score_N.sum()), samples, level), float(samples)
    worth = scores_worth(scores)
    return wilson_by_problem(scores.mean_P, worth, level), worth


def is_single(scores: Scores) -> bool:
    """Whether each problem has one sample, either correct or incorrect."""
    return bool(scores.samples_P.max() == 1 and np.isin(scores.score_N, (0, 1)).all())


def wilson_by_problem(value_P: np.ndarray, trials: float, level: float = LEVEL) -> Interval:
    """The mean of the problems' values, each in [0, 1], as of that many independent trials, which may be fractional.

    Wilson's interval with an effective sample size and Student's quantile of P-1 degrees, as for complex surveys (Korn
    and Graubard 1998; Dean and Pagano 2015; Franco, Little, Louis and Slud 2019).
    Raises ValueError for fewer than 2 problems.
    """
    check_level(level)
    problems, value = len(value_P), float(np.mean(value_P))
    if problems < 2:
        raise ValueError(f"{problems} problem has no interval: evaluate at least 2")
    quantile = float(scipy_stats().t.isf((1 - level) / 2, problems - 1))
    square = quantile**2 / trials
    centre = (value + square / 2) / (1 + square)
    half = float(np.sqrt(square * (value * (1 - value) + square / 4))) / (1 + square)
    low, high = max(min(centre - half, value), 0.0), min(max(centre + half, value), 1.0)
    return Interval(value, low, high, level, "wilson by problem")


def scores_worth(scores: Scores) -> float:
    """The number of independent correct or incorrect samples that the mean of the scores is worth.

    A score between 0 and 1 tells more than one of 0 or 1 with the same mean, by the ratio of their variances.
    """
    mean = float(scores.score_N.mean())
    spread = float(np.mean(scores.score_N**2)) - mean**2
    graded = mean * (1 - mean) / spread if spread > 1e-12 else 1.0
    return trials_worth(scores.mean_P, scores.samples_P, graded)


def trials_worth(value_P: np.ndarray, trials_P: np.ndarray, ratio: float = 1.0) -> float:
    """The number of independent trials that problems are worth, with their mean successes and their trials.

    It is the smaller of two: what the variance between the problems' values shows (the design effect of Kish 1965), and
    what the posterior of the correlation leaves likely, times `ratio`. The second holds near 0 and 1, where few
    problems vary, and where none does; the first holds where the chances of problems are far from a beta distribution.
    """
    problems, value = len(value_P), float(np.mean(value_P))
    correlation = intraclass_correlation(value_P * trials_P, trials_P)
    likely = ratio * problems / (correlation + (1 - correlation) * float(np.mean(1 / trials_P)))
    variance = float(np.var(value_P, ddof=1)) if problems > 1 else 0.0
    return min(likely, problems * value * (1 - value) / variance) if variance > 0 else likely


def check_level(level: float) -> None:
    """Raises ValueError unless 0 < level < 1."""
    if not 0 < level < 1:
        raise ValueError(f"a confidence level must be in (0, 1), got a level of {level:g}: give for example 0.95")
