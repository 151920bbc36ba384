"""Estimates from a few trainings over many problems: intervals, and tests of a difference between two arms.

Two things vary: which problems there are, and which training of a recipe was probed. Problems are many, and all models
are probed on the same ones. Trainings (seeds) are few, and what they show of their variance has few degrees of freedom.
The variance of the mean of S seeds over G problems is

    W / S + max(P - I / S, 0)

W is the variance between seeds, P that of the mean from problem to problem, and I that of seeds that differ from one
another from problem to problem; I is in W already, and leaves P (two-way random effects; Searle, Casella and McCulloch
1992, 4.5). The half-width of an interval is √(t²_{S-1} W / S + t²_{G-1} max(...)), each variance with Student's
quantile of its own: exact where one of them dominates, and a little wide between (the squares of half-widths add up as
in Zou and Donner 2008). Satterthwaite's degrees of freedom would be too many where W happens to be small.

Two arms have independent seeds and the same problems; W is pooled over both, which assumes that trainings of both arms
vary alike (with equal numbers of seeds it hardly matters). With one seed per arm there is no W: intervals and tests are
then about these trained models and not about their recipes.

Statistics are linear in the problems to first order: `influence_GX` says what each problem adds to each (the
linearization of survey statistics, Binder 1983).

Shape legend: G problems, X statistics, S seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

LEVEL = 0.95
_LEAST_LOG_P, _BISECTIONS = np.log(1e-15), 50
Interval = dict[str, float | None]
"""value, ci_low and ci_high; None where undefined"""


@dataclass(frozen=True)
class Estimates:
    """Statistics of one trained model."""

    value_X: np.ndarray
    influence_GX: np.ndarray
    """what each problem adds to each value; every column sums to 0"""


@dataclass(frozen=True)
class Variance:
    """The two variances of estimates [X]: from seeds, with `seed_freedom` degrees of freedom, and from problems."""

    seeds_X: np.ndarray
    problems_X: np.ndarray
    seed_freedom: int
    problem_freedom: int

    def pooled(self, columns: np.ndarray, weights: np.ndarray) -> Variance:
        """That of one statistic whose variances are sums of those of some columns with weights."""
        seeds_X, problems_X = (np.atleast_1d(weights @ part_X[columns]) for part_X in (self.seeds_X, self.problems_X))
        return Variance(seeds_X, problems_X, self.seed_freedom, self.problem_freedom)

    def squared_half_width_X(self, level_X: np.ndarray | float = LEVEL) -> np.ndarray:
        """Of the intervals of these levels."""
        tail_X = (1 - np.asarray(level_X)) / 2
        squares_X: np.ndarray = stdtrit(self.problem_freedom, tail_X) ** 2 * self.problems_X
        return squares_X + stdtrit(self.seed_freedom, tail_X) ** 2 * self.seeds_X if self.seed_freedom else squares_X

    def p_value_X(self, square_X: np.ndarray) -> np.ndarray:
        """Of squared differences: 1 minus the level whose interval reaches so far; at least 1e-15, NaN if undefined."""
        low_X, high_X = np.full(len(square_X), _LEAST_LOG_P), np.zeros(len(square_X))
        for _ in range(_BISECTIONS):
            middle_X = (low_X + high_X) / 2
            is_inside_X = square_X <= self.squared_half_width_X(1 - np.exp(middle_X))
            low_X, high_X = np.where(is_inside_X, middle_X, low_X), np.where(is_inside_X, high_X, middle_X)
        undefined_X = ~(np.isfinite(square_X) & np.isfinite(self.seeds_X + self.problems_X))
        p_X: np.ndarray = np.where(undefined_X, np.nan, np.exp(high_X))
        return p_X


def ratio_estimates(sums_GX: np.ndarray) -> Estimates:
    """Ratios of sums over problems; sums_GX [G, 2 * ratios] has the numerator and the denominator of each in turn."""
    numerator_GM, denominator_GM = sums_GX[:, ::2], sums_GX[:, 1::2]
    with np.errstate(divide="ignore", invalid="ignore"):
        total_M = denominator_GM.sum(0)
        value_M = numerator_GM.sum(0) / total_M
        return Estimates(value_M, (numerator_GM - value_M * denominator_GM) / total_M)


def mean(seeds: Sequence[Estimates]) -> np.ndarray:
    """[X]: the mean over the seeds of an arm."""
    mean_X: np.ndarray = np.mean([seed.value_X for seed in seeds], axis=0)
    return mean_X


def variance(seeds: Sequence[Estimates]) -> Variance:
    """The variance of the mean over the seeds of an arm."""
    return _variance(seeds, [])


def difference_variance(arm: Sequence[Estimates], control: Sequence[Estimates]) -> Variance:
    """The variance of the mean of an arm minus that of another, on the same problems."""
    return _variance(arm, control)


def intervals(value_X: np.ndarray, spread: Variance) -> list[Interval]:
    """The 95 % interval of each."""
    half_X = np.sqrt(spread.squared_half_width_X())
    defined_X = np.isfinite(value_X) & np.isfinite(half_X)
    return [
        {"value": float(value), "ci_low": float(value - half), "ci_high": float(value + half)}
        if defined
        else {"value": None, "ci_low": None, "ci_high": None}
        for value, half, defined in zip(value_X, half_X, defined_X, strict=True)
    ]


def p_value(difference_X: np.ndarray, spread: Variance, weight_X: np.ndarray) -> float | None:
    """The p-value of no difference in any of the statistics together: Σ weight * difference² against its expectation.

    For one statistic it is Student's test. For several the reference is that of one, the bound that holds whatever
    their correlation (Box 1954; Geisser and Greenhouse 1958). None where undefined.
    """
    chosen = np.flatnonzero(weight_X)  # others may be undefined
    square = float(weight_X[chosen] @ difference_X[chosen] ** 2)
    p = float(spread.pooled(chosen, weight_X[chosen]).p_value_X(np.array([square]))[0])
    return p if np.isfinite(p) else None


def _variance(first: Sequence[Estimates], second: Sequence[Estimates]) -> Variance:
    """Of the mean of the first minus that of the second, which may have no seed."""
    arms = [arm for arm in (first, second) if arm]
    influence_GX = np.mean([seed.influence_GX for seed in first], axis=0)
    if second:
        influence_GX = influence_GX - np.mean([seed.influence_GX for seed in second], axis=0)
    problems = len(influence_GX)
    unbiased = problems / (problems - 1)
    problems_X = unbiased * (influence_GX**2).sum(0)
    seed_freedom = sum(len(arm) - 1 for arm in arms)
    if not seed_freedom:
        return Variance(np.zeros_like(problems_X), problems_X, 0, problems - 1)
    between_X = np.sum([_squares([seed.value_X for seed in arm]) for arm in arms], axis=0) / seed_freedom
    within_GX = np.sum([_squares([seed.influence_GX for seed in arm]) for arm in arms], axis=0) / seed_freedom
    within_X = unbiased * within_GX.sum(0)
    fraction = sum(1 / len(arm) for arm in arms)
    common_X = np.maximum(problems_X - fraction * within_X, 0)
    return Variance(fraction * between_X, common_X, seed_freedom, problems - 1)


def _squares(values: Sequence[np.ndarray]) -> np.ndarray:
    """Σ over seeds of the squared deviation from their mean."""
    stacked = np.stack(values)
    squares: np.ndarray = ((stacked - stacked.mean(0)) ** 2).sum(0)
    return squares
