"""What a design of so many seeds and problems can find, by the test that decides the verdict.

A difference between two arms is tested by Student's t with the variance of `estimates`, at Holm's first step over all
tests of its family.
"""

from __future__ import annotations

import math

from scipy import optimize, stats

ALPHA = 0.05
"""of the verdict, over all arms and components"""
POWER = 0.8
FEWEST_PROBLEMS = 8
"""problems from which on a verdict is given: with fewer, their variance is too uncertain for a test at Holm's level"""
_MOST_SEEDS = 1000


def minimum_detectable(
    seed_variance: float, seed_freedom: int, problem_variance: float, problem_freedom: int, tests: int
) -> float:
    """The smallest difference that is found with a power of 80 %, from the noncentral t distribution.

    The variances are those of the difference. tests: in the family. The degrees of freedom are Satterthwaite's (1946),
    and the critical value is that of the test.
    """
    variance = seed_variance + problem_variance
    if variance == 0:
        return 0.0
    tail = ALPHA / tests / 2
    square = problem_variance * stats.t.isf(tail, problem_freedom) ** 2
    terms = problem_variance**2 / problem_freedom
    if seed_freedom:
        square += seed_variance * stats.t.isf(tail, seed_freedom) ** 2
        terms += seed_variance**2 / seed_freedom
    critical, freedom = math.sqrt(square / variance), variance**2 / terms

    def lacking(ratio: float) -> float:
        return float(stats.nct.sf(critical, freedom, ratio)) - POWER

    high = critical + 2.0
    while lacking(high) < 0:
        high *= 1.5
    return math.sqrt(variance) * float(optimize.brentq(lacking, 0.0, high, xtol=1e-3))


def detectable_difference(
    seeds: int, problems: int, seed_deviation: float, problem_deviation: float, tests: int
) -> float | None:
    """The smallest difference between an arm and the control, with as many seeds each; None with one seed each.

    seed_deviation: of one recipe's trainings. problem_deviation: of the problems' own differences between two models.
    """
    if seeds < 2:
        return None
    seed_variance, problem_variance = 2 * seed_deviation**2 / seeds, problem_deviation**2 / problems
    return minimum_detectable(seed_variance, 2 * seeds - 2, problem_variance, problems - 1, tests)


def detectable_in_seed_sds(seeds: int, tests: int) -> float:
    """The smallest difference in standard deviations of one recipe's trainings, where problems are without limit."""
    return minimum_detectable(2 / seeds, 2 * seeds - 2, 0.0, 1, tests)


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
