"""A paired comparison that ends as soon as its question is decided, so that the rest need not be sampled.

    sequence = PairedSequence(maximum=1000, margin=2.0)
    for batch in batches:                        # problems in the order of `budgets.subset`
        look = sequence.look(second_B - first_B)
        if look.ended: break

Group sequential: alpha is spent by the share of problems seen, little of it early (Lan and DeMets 1983, after O'Brien
and Fleming), so batches may be of any size and may be chosen by what is idle, though not by what was seen. Each look
gives a repeated confidence interval (Jennison and Turnbull 1989); all of a study's intervals hold together with
probability 1 - alpha, so both a difference and its absence within the margin may be read off the first that shows it.
A study whose question the remaining problems will hardly decide ends too; that can only make false findings rarer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from ..libraries import scipy_stats
from .power import ALPHA

Verdict = Literal["undecided", "first is better", "second is better", "no difference"]

_HOPELESS = 0.1
_GRID = 501  # odd, for Simpson's rule
_FAR = 8.5  # standard deviations beyond which nothing is left to spend: 1e-17


@dataclass(frozen=True)
class Look:
    """What is known after some of the problems; differences are second less first, in percentage points."""

    verdict: Verdict
    """"no difference" where the interval lies inside the margin; a difference of either kind ends the study too"""
    problems: int
    points: float
    low: float
    high: float
    ended: bool
    """decided, at the maximum, or undecided with a chance under 10 % that the maximum would decide it"""


class PairedSequence:
    """Looks at the paired differences of a study of at most `maximum` problems.

    margin: percentage points; a true difference inside ± margin is as good as none.
    alpha: the chance of a finding where the arms are alike, over all looks together.
    """

    def __init__(self, maximum: int, margin: float, alpha: float = ALPHA) -> None:
        if maximum < 2 or not margin > 0 or not 0 < alpha < 1:
            raise ValueError(
                f"a maximum of {maximum} problems, margin of {margin:g} points and alpha of {alpha:g} make no "
                "sequential test: give at least 2 problems, a margin over 0 and an alpha between 0 and 1"
            )
        self.maximum, self.margin, self.alpha = maximum, margin, alpha
        self.looks: list[Look] = []
        self._fractions: tuple[float, ...] = ()
        self._count, self._sum, self._squares = 0, 0.0, 0.0

    def look(self, difference_B: np.ndarray) -> Look:
        """The state after a further batch of problems, at least 1, each with its second mean score less its first.

        Raises ValueError for an empty batch, a difference that is no number of -1 to 1, more problems than the maximum,
        and a study that has ended.
        """
        difference_B = np.asarray(difference_B, np.float64)
        self._check(difference_B)
        self._count += len(difference_B)
        self._sum += float(difference_B.sum())
        self._squares += float(np.square(difference_B).sum())
        self._fractions += (self._count / self.maximum,)
        mean = self._sum / self._count
        half = self._half_width()
        low, high = max(100 * (mean - half), -100.0), min(100 * (mean + half), 100.0)
        verdict: Verdict = "undecided"
        if low > 0:
            verdict = "second is better"
        elif high < 0:
            verdict = "first is better"
        elif -self.margin < low and high < self.margin:
            verdict = "no difference"
        ended = verdict != "undecided" or self._count == self.maximum or self._chance(mean) < _HOPELESS
        self.looks.append(Look(verdict, self._count, 100 * mean, low, high, ended))
        return self.looks[-1]

    def _half_width(self) -> float:
        """Of the repeated interval, a share."""
        if self._count < 2:
            return np.inf
        stats = scipy_stats()
        tail = stats.norm.sf(bound(self._fractions, self.alpha))
        return float(stats.t.isf(tail, self._count - 1)) * self._error()

    def _error(self) -> float:
        """The standard error of the mean difference, a share.

        Two further problems, won outright by one arm each, count in the variance (as in Bonett and Price 2012, the
        centre left where it is): without them a handful of problems that differ all one way would decide a study.
        """
        squares = max(self._squares - self._sum**2 / self._count, 0.0) + 2.0
        return float(np.sqrt(squares)) / self._count

    def _chance(self, mean: float) -> float:
        """The chance that a single further look, at the maximum, decides the question either way.

        Predictive power (Spiegelhalter, Freedman and Blackburn 1986): with no prior knowledge of the true difference
        the mean at the maximum is normal about the mean so far, with a variance of (1 - t) / t times what it will have.
        """
        norm, seen = scipy_stats().norm, self._fractions[-1]
        error = self._error() * np.sqrt(seen)  # at the maximum
        far = bound((*self._fractions, 1.0), self.alpha)
        centre, spread = abs(mean) / error, np.sqrt((1 - seen) / seen)
        differs = norm.sf((far - centre) / spread) + norm.cdf((-far - centre) / spread)
        inside = max(self.margin / 100 / error - far, 0.0)
        return float(differs + norm.cdf((inside - centre) / spread) - norm.cdf((-inside - centre) / spread))

    def _check(self, difference_B: np.ndarray) -> None:
        if self.looks and self.looks[-1].ended:
            raise ValueError(
                f"the study ended after {self._count} problems ({self.looks[-1].verdict}): a look after that would be "
                "a new study"
            )
        if difference_B.ndim != 1 or not len(difference_B):
            raise ValueError(f"a batch of shape {difference_B.shape} is no list of differences: give one a problem")
        bad = ~(np.abs(difference_B) <= 1)
        if bad.any():
            raise ValueError(
                f"difference {bad.argmax()} of the batch is {difference_B[bad.argmax()]:g}: give mean scores less mean "
                "scores, -1 to 1"
            )
        if self._count + len(difference_B) > self.maximum:
            raise ValueError(
                f"{self._count + len(difference_B)} problems are more than the maximum of {self.maximum} that the test "
                "was planned for: leave out the last, a longer study is a new one"
            )


def spent(fraction: float, alpha: float = ALPHA) -> float:
    """Alpha spent on both sides once this fraction of the problems is seen: 4 (1 - Φ(z(alpha/4) / √fraction))."""
    norm = scipy_stats().norm
    return float(4 * norm.sf(norm.isf(alpha / 4) / np.sqrt(fraction)))


def bound(fractions: tuple[float, ...], alpha: float = ALPHA) -> float:
    """The |z| at which the last of these looks decides, inf where next to no alpha is left for it.

    fractions: of the maximum, rising, at each look so far. By recursive integration (Armitage, McPherson and Rowe
    1969).
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
