"""Intervals of the difference of two runs over the same problems, as a fraction: the run minus its baseline."""

from __future__ import annotations

import numpy as np

from .intervals import LEVEL, Interval, accuracy_and_worth, check_level, is_single
from .libraries import scipy_stats
from .scores import Scores


def paired_difference(baseline: Scores, run: Scores, level: float = LEVEL) -> Interval:
    """The mean difference over problems, which both runs have in the same order.

    `bonett_price` where every problem has one sample, correct or incorrect, in each run, and where no problem's mean
    differs; otherwise `mover`. Raises ValueError for fewer than 2 problems.
    """
    difference_P = run.mean_P - baseline.mean_P
    if (is_single(baseline) and is_single(run)) or not difference_P.any():
        return bonett_price(difference_P, level)
    return mover(baseline, run, level)


def bonett_price(difference_P: np.ndarray, level: float = LEVEL) -> Interval:
    """Student's interval of the differences of P problems and two more, one won by each run (Bonett and Price 2012).

    The two stand for the discordant problems that few problems may fail to show. The estimate leaves them out.
    """
    check_level(level)
    problems = len(difference_P)
    _check_problems(problems)
    total = float(difference_P.sum())
    centre = total / (problems + 2)
    squares = float(np.square(difference_P).sum()) + 2 - (problems + 2) * centre**2
    half = float(scipy_stats().t.isf((1 - level) / 2, problems - 1)) * float(np.sqrt(squares)) / (problems + 2)
    value = total / problems
    low, high = max(min(centre - half, value), -1.0), min(max(centre + half, value), 1.0)
    return Interval(value, low, high, level, "bonett-price")


def mover(baseline: Scores, run: Scores, level: float = LEVEL) -> Interval:
    """The interval from those of the two accuracies and their correlation.

    Square-and-add (Newcombe 1998, method 10), of any estimates known as MOVER (Zou and Donner 2008). The correlation is
    the covariance of the problems' means over the standard errors of the accuracies' own intervals: where these reckon
    with more variance than the problems show, nothing is taken to be common to the runs in it.
    """
    _check_problems(len(run.mean_P))
    (first, trials_of_first), (second, trials_of_second) = (
        accuracy_and_worth(scores, level) for scores in (baseline, run)
    )
    value = second.value - first.value
    covariance = float(np.cov(baseline.mean_P, run.mean_P)[0, 1]) / len(run.mean_P)
    product = (first.value * (1 - first.value) / trials_of_first) * (
        second.value * (1 - second.value) / trials_of_second
    )
    correlation = float(np.clip(covariance / np.sqrt(product), -1, 1)) if product > 0 else 0.0

    def distance(of_run: float, of_baseline: float) -> float:
        return float(np.sqrt(max(of_run**2 + of_baseline**2 - 2 * correlation * of_run * of_baseline, 0.0)))

    low = value - distance(second.value - second.ci_low, first.ci_high - first.value)
    high = value + distance(second.ci_high - second.value, first.value - first.ci_low)
    return Interval(value, low, high, level, "mover by problem")


def _check_problems(problems: int) -> None:
    if problems < 2:
        raise ValueError(f"{problems} problem has no interval: evaluate at least 2")
