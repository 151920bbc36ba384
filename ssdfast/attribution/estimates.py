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

Two arms have independent seeds and the same problems. Each arm has a W of its own, and the degrees of freedom of their
sum are Welch's (1947), since trainings of one recipe may vary more than those of another. An arm of one seed takes the
W of the other. With one seed of each arm there is no W: intervals and tests are then about these trained models and not
about their recipes.

Statistics are linear in the problems to first order: `influence_GX` says what each problem adds to each (the
linearization of survey statistics, Binder 1983).

Shape legend: G problems, X statistics, S seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

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
    """The variances of estimates [X], from seeds and from problems, with their degrees of freedom."""

    seeds: Sequence[tuple[np.ndarray, int]]
    """of each arm; none where no arm has several seeds"""
    problems_X: np.ndarray
    problem_freedom: int

    @cached_property
    def seeds_X(self) -> np.ndarray:
        """Of all arms together."""
        return sum((part_X for part_X, _ in self.seeds), np.zeros_like(self.problems_X))

    @cached_property
    def seed_freedom_X(self) -> np.ndarray:
        """Welch's degrees of freedom of `seeds_X`."""
        terms_X = sum((part_X**2 / freedom for part_X, freedom in self.seeds), np.zeros_like(self.problems_X))
        fewest = min((freedom for _, freedom in self.seeds), default=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            freedom_X: np.ndarray = np.where(terms_X > 0, self.seeds_X**2 / terms_X, fewest)
        return freedom_X

    def pooled(self, columns: np.ndarray, weights: np.ndarray) -> Variance:
        """That of one statistic whose variances are sums of those of some columns with weights."""

        def total(part_X: np.ndarray) -> np.ndarray:
            return np.atleast_1d(weights @ part_X[columns])

        seeds = [(total(part_X), freedom) for part_X, freedom in self.seeds]
        return Variance(seeds, total(self.problems_X), self.problem_freedom)

    def squared_half_width_X(self, level_X: np.ndarray | float = LEVEL) -> np.ndarray:
        """Of the intervals of these levels."""
        tail_X = (1 - np.asarray(level_X)) / 2
        squares_X: np.ndarray = stdtrit(self.problem_freedom, tail_X) ** 2 * self.problems_X
        return squares_X + stdtrit(self.seed_freedom_X, tail_X) ** 2 * self.seeds_X if self.seeds else squares_X

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


def mean_influence(seeds: Sequence[Estimates]) -> np.ndarray:
    """[G, X]: what each problem adds to the mean over the seeds of an arm."""
    influence_GX: np.ndarray = np.mean([seed.influence_GX for seed in seeds], axis=0)
    return influence_GX


def sum_by_problem(values_NX: np.ndarray, problem_N: np.ndarray, problems: int) -> np.ndarray:
    """[G, X]: sums over the rows of each problem; the problems are numbered from 0."""
    columns = [np.bincount(problem_N, value_N, problems) for value_N in values_NX.T]
    return np.stack(columns, 1)


def variance(arm: Sequence[Estimates], control: Sequence[Estimates] = ()) -> Variance:
    """The variance of the mean over the seeds of an arm, or of that minus another arm's, on the same problems."""
    arms = [seeds for seeds in (arm, control) if seeds]
    influence_GX = mean_influence(arm) - mean_influence(control) if control else mean_influence(arm)
    problems = len(influence_GX)
    unbiased = problems / (problems - 1)
    problems_X = unbiased * (influence_GX**2).sum(0)
    if all(len(seeds) == 1 for seeds in arms):
        return Variance([], problems_X, problems - 1)
    # An arm of one seed takes the variances of the other; together they are one sum with the other's freedom.
    several = [seeds for seeds in arms if len(seeds) > 1]
    shares = [1 / len(seeds) for seeds in several]
    shares[0] += sum(1.0 for seeds in arms if len(seeds) == 1)
    parts, within_X = [], np.zeros_like(problems_X)
    for seeds, share in zip(several, shares, strict=True):
        freedom = len(seeds) - 1
        parts.append((share * _squares([seed.value_X for seed in seeds]) / freedom, freedom))
        squares_GX = _squares([seed.influence_GX for seed in seeds])
        within_X = within_X + share * unbiased * squares_GX.sum(0) / freedom
    return Variance(parts, np.maximum(problems_X - within_X, 0), problems - 1)


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


def _squares(values: Sequence[np.ndarray]) -> np.ndarray:
    """Σ over seeds of the squared deviation from their mean."""
    stacked = np.stack(values)
    squares: np.ndarray = ((stacked - stacked.mean(0)) ** 2).sum(0)
    return squares
