"""A paired comparison that stops as soon as its question is decided, so that the rest need not be sampled.

    test = SequentialTest(max_problems=1000, equivalence_margin_pp=2.0)
    for batch in batches:                        # problems in the order of `stratified_subset`
        look = test.look(run_B - baseline_B)
        if look.stopped: break

Group sequential: alpha is spent by the fraction of problems seen, little of it early (Lan and DeMets 1983, after
O'Brien and Fleming), so batches may be of any size and may be chosen by what is idle, though not by what was seen. Each
look gives a repeated confidence interval (Jennison and Turnbull 1989); all of a study's intervals hold together with
probability 1 - alpha, so both a difference and its absence within the margin may be read off the first that shows it.
A study whose question the remaining problems will hardly decide stops too; that can only make false positives rarer.

Shape legend: B problems of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from .intervals import Interval
from .libraries import scipy_stats
from .power import ALPHA

Decision = Literal["undecided", "baseline_better", "run_better", "equivalent"]

_HOPELESS = 0.1
_GRID = 501  # odd, for Simpson's rule
_FAR = 8.5  # standard deviations beyond which nothing is left to spend: 1e-17


@dataclass(frozen=True)
class Look:
    """The state of a study after some of the problems."""

    decision: Decision
    """ "equivalent" where the interval lies inside the margin; a difference of either sign stops the study too."""
    problems: int
    difference_pp: Interval
    """The run minus the baseline in percentage points, with the repeated confidence interval."""
    stopped: bool
    """Decided, at the maximum, or undecided with a chance below 10 % that the maximum would decide it."""


class SequentialTest:
    """Looks at the paired differences of a study of at most `max_problems` problems.

    equivalence_margin_pp: percentage points; a true difference inside ± the margin counts as none.
    alpha: the chance of finding a difference where there is none, over all looks together.
    """

    def __init__(self, max_problems: int, equivalence_margin_pp: float, alpha: float = ALPHA) -> None:
        if max_problems < 2 or not equivalence_margin_pp > 0 or not 0 < alpha < 1:
            raise ValueError(
                f"there is no sequential test of at most {max_problems} problems, a margin of "
                f"{equivalence_margin_pp:g} percentage points and an alpha of {alpha:g}: give at least 2 problems, a "
                "margin above 0 and an alpha in (0, 1)"
            )
        self.max_problems, self.equivalence_margin_pp, self.alpha = max_problems, equivalence_margin_pp, alpha
        self.looks: list[Look] = []
        self._fractions: tuple[float, ...] = ()
        self._count, self._sum, self._squares = 0, 0.0, 0.0

    def look(self, difference_B: np.ndarray) -> Look:
        """The state after a further batch of problems, at least 1, each with the run's mean score minus the baseline's.

        Raises ValueError for an empty batch, a difference outside [-1, 1], more problems than the maximum, and a study
        that has stopped.
        """
        difference_B = np.asarray(difference_B, np.float64)
        self._check(difference_B)
        self._count += len(difference_B)
        self._sum += float(difference_B.sum())
        self._squares += float(np.square(difference_B).sum())
        self._fractions += (self._count / self.max_problems,)
        mean = self._sum / self._count
        half = self._half_width()
        low, high = max(100 * (mean - half), -100.0), min(100 * (mean + half), 100.0)
        decision: Decision = "undecided"
        if low > 0:
            decision = "run_better"
        elif high < 0:
            decision = "baseline_better"
        elif -self.equivalence_margin_pp < low and high < self.equivalence_margin_pp:
            decision = "equivalent"
        stopped = (
            decision != "undecided" or self._count == self.max_problems or self._chance_of_decision(mean) < _HOPELESS
        )
        interval = Interval(100 * mean, low, high, 1 - self.alpha, "repeated")
        self.looks.append(Look(decision, self._count, interval, stopped))
        return self.looks[-1]

    def _half_width(self) -> float:
        """Half the width of the repeated interval, a fraction."""
        if self._count < 2:
            return np.inf
        stats = scipy_stats()
        tail = stats.norm.sf(bound(self._fractions, self.alpha))
        return float(stats.t.isf(tail, self._count - 1)) * self._error()

    def _error(self) -> float:
        """The standard error of the mean difference, a fraction.

        Two further problems, one won by each run, count in the variance (as in Bonett and Price 2012, without moving
        the centre): without them a handful of problems that all favour one run would decide a study.
        """
        squares = max(self._squares - self._sum**2 / self._count, 0.0) + 2.0
        return float(np.sqrt(squares)) / self._count

    def _chance_of_decision(self, mean: float) -> float:
        """The chance that a single further look, at the maximum, decides the question either way.

        Predictive power (Spiegelhalter, Freedman and Blackburn 1986): with no prior knowledge of the true difference
        the mean at the maximum is normal about the mean so far, with a variance of (1 - t) / t times what it will have.
        """
        norm, seen = scipy_stats().norm, self._fractions[-1]
        error = self._error() * np.sqrt(seen)  # at the maximum
        far = bound((*self._fractions, 1.0), self.alpha)
        centre, spread = abs(mean) / error, np.sqrt((1 - seen) / seen)
        differs = norm.sf((far - centre) / spread) + norm.cdf((-far - centre) / spread)
        inside = max(self.equivalence_margin_pp / 100 / error - far, 0.0)
        return float(differs + norm.cdf((inside - centre) / spread) - norm.cdf((-inside - centre) / spread))

    def _check(self, difference_B: np.ndarray) -> None:
        if self.looks and self.looks[-1].stopped:
            raise ValueError(
                f"the study ended after {self._count} problems ({self.looks[-1].decision}): begin a new study for more"
            )
        if difference_B.ndim != 1 or not len(difference_B):
            raise ValueError(f"a batch of shape {difference_B.shape} is no list of differences: give one per problem")
        bad = ~(np.abs(difference_B) <= 1)
        if bad.any():
            raise ValueError(
                f"difference {bad.argmax()} of the batch is {difference_B[bad.argmax()]:g}: give differences of mean "
                "scores, in [-1, 1]"
            )
        if self._count + len(difference_B) > self.max_problems:
            raise ValueError(
                f"{self._count + len(difference_B)} problems are more than the maximum of {self.max_problems} that the "
                "test was planned for: leave out the last, or begin a longer study anew"
            )


def spent(fraction: float, alpha: float = ALPHA) -> float:
    """Alpha spent on both sides once this fraction of the problems is seen: 4 (1 - Φ(z(alpha/4) / √fraction))."""
    norm = scipy_stats().norm
    return float(4 * norm.sf(norm.isf(alpha / 4) / np.sqrt(fraction)))


def bound(fractions: tuple[float, ...], alpha: float = ALPHA) -> float:
    """The |z| at which the last of these looks decides, inf where next to no alpha is left for it.

    fractions: the fraction of the maximum at each look so far, rising.
    By recursive integration (Armitage, McPherson and Rowe 1969).
    """
    return _walk(fractions, alpha)[0]


@lru_cache(maxsize=4096)
def _walk(fractions: tuple[float, ...], alpha: float) -> tuple[float, np.ndarray, np.ndarray]:
    """The bound of the last look; and where the score, a Brownian motion, may be after it if undecided.

    That is points [_GRID], and the probability that each stands for [_GRID].
    """
    norm = scipy_stats().norm
    now, before = fractions[-1], fractions[-2] if len(fractions) > 1 else 0.0
    if len(fractions) > 1:
        _, start, mass = _walk(fractions[:-1], alpha)
    else:
        start, mass = np.zeros(1), np.ones(1)
    step = np.sqrt(now - before)
    to_spend = (spent(now, alpha) - (spent(before, alpha) if before else 0.0)) / 2

    def crosses(z: float) -> float:
        return float(mass @ norm.sf((z * np.sqrt(now) - start) / step)) - to_spend

    if crosses(_FAR) >= 0:
        z = np.inf
    else:
        from scipy.optimize import brentq

        z = brentq(crosses, 0.0, _FAR, xtol=1e-10)
    edge = min(z, _FAR) * np.sqrt(now)
    points = np.linspace(-edge, edge, _GRID)
    density = norm.pdf((points[:, None] - start) / step) @ mass / step
    simpson = np.full(_GRID, 2.0)
    simpson[1::2], simpson[[0, -1]] = 4.0, 1.0
    return float(z), points, density * simpson * (points[1] - points[0]) / 3
