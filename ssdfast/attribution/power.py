"""What a design of so many seeds and problems can find, by the test that decides the verdict.

A difference between two arms is tested by Student's t with the variance of `estimates`, at Holm's first step over all
tests of its family.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import optimize, stats

from .mixture_model import COMPONENTS

ALPHA = 0.05
"""of the verdict, over all arms and components"""
POWER = 0.8
FEWEST_PROBLEMS = 8
"""problems from which on a verdict is given: with fewer, their variance is too uncertain for a test at Holm's level"""
_MOST_SEEDS = 1000
_QUANTILES = 200


def component_tests(arms: int) -> int:
    """The tests that decide the verdicts of a study with so many arms, the control among them: of each other arm, one
    per component and one of the residual."""
    return (arms - 1) * (len(COMPONENTS) + 1)


def minimum_detectable(
    seed_variance: float, seeds: tuple[int, int], problem_variance: float, problems: int, tests: int
) -> float:
    """The smallest difference that is found with a power of 80 %, from the noncentral t distribution.

    The variances are those of the difference of two arms with so many seeds, which are taken to vary alike. tests: in
    the family.
    """
    variance = seed_variance + problem_variance
    if variance == 0:
        return 0.0
    tail = ALPHA / tests / 2
    critical_Q, seed_freedom = _seed_criticals(seeds, tail)
    problem_critical = stats.t.isf(tail, problems - 1)
    critical_Q = np.sqrt((seed_variance * critical_Q**2 + problem_variance * problem_critical**2) / variance)
    # Satterthwaite's (1946) degrees of freedom of both variances together.
    terms = problem_variance**2 / (problems - 1) + (seed_variance**2 / seed_freedom if seed_variance else 0.0)
    freedom = variance**2 / terms

    def lacking(ratio: float) -> float:
        return float(np.mean(stats.nct.sf(critical_Q, freedom, ratio))) - POWER

    high = float(np.median(critical_Q)) + 2.0
    while lacking(high) < 0:
        high *= 1.5
    return math.sqrt(variance) * float(optimize.brentq(lacking, 0.0, high, xtol=1e-3))


def _seed_criticals(seeds: tuple[int, int], tail: float) -> tuple[np.ndarray, int]:
    """Critical values of a variance between seeds, and its degrees of freedom.

    Welch's degrees of freedom depend on the fraction of the sum of squares that is the first arm's, of which the values
    are at equally likely quantiles. An arm of one seed takes the variance of the other.
    """
    several = [count for count in seeds if count > 1]
    if len(several) < 2:
        freedom = several[0] - 1 if several else 1
        return np.array([stats.t.isf(tail, freedom)]), freedom
    first, second = (count - 1 for count in several)
    fraction_Q = stats.beta.ppf((np.arange(_QUANTILES) + 0.5) / _QUANTILES, first / 2, second / 2)
    parts_Q2 = np.stack([fraction_Q / first / several[0], (1 - fraction_Q) / second / several[1]], 1)
    welch_Q = parts_Q2.sum(1) ** 2 / (parts_Q2**2 / [first, second]).sum(1)
    scale_Q = np.sqrt((first + second) * parts_Q2.sum(1) / (1 / several[0] + 1 / several[1]))
    return stats.t.isf(tail, welch_Q) * scale_Q, first + second


def detectable_difference(
    seeds: int, problems: int, seed_deviation: float, problem_deviation: float, tests: int
) -> float | None:
    """The smallest difference between an arm and the control, with as many seeds each; None with one seed each.

    seed_deviation: of one recipe's trainings. problem_deviation: of the problems' own differences between two models.
    """
    if seeds < 2:
        return None
    seed_variance, problem_variance = 2 * seed_deviation**2 / seeds, problem_deviation**2 / problems
    return minimum_detectable(seed_variance, (seeds, seeds), problem_variance, problems, tests)


def detectable_in_seed_sds(seeds: int, tests: int) -> float:
    """The smallest difference in standard deviations of one recipe's trainings, where problems are without limit."""
    return minimum_detectable(2 / seeds, (seeds, seeds), 0.0, 2, tests)


def seeds_needed(difference: float, seed_deviation: float, tests: int) -> int | None:
    """Seeds per arm that find this difference between recipes; None beyond 1,000."""
    low, high = 2, _MOST_SEEDS

    def found(seeds: int) -> bool:
        return seed_deviation * detectable_in_seed_sds(seeds, tests) <= difference

    if not found(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) else (middle + 1, high)
    return low
