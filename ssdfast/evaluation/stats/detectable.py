"""The power of the tests of two runs, and the smallest effect that they detect.

What an effect does to the noise has to be assumed: it turns each wrong answer of the run right with the same chance,
whatever the baseline answered and however hard the problem is. A negative effect turns right answers wrong. So an
effect is larger where there is more room for it, and adds variance. It also leaves some of the losses, which a rule
such as "as many discordant problems as the effect" would not.

Shape legend: K numbers of discordant problems, Q quantiles.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .libraries import scipy_stats

_STEP = 1e-4
_QUANTILES = 1000


@dataclass(frozen=True)
class DifferenceVariance:
    """The variance of a problem's difference without an effect, and what is needed to have it at an effect."""

    variance: float
    mean_variance: float
    """Of a run's mean scores of the problems; without an effect it is the same in both runs."""
    accuracy: float
    samples: float
    """The number of samples per problem of the run."""

    def at(self, effect: float) -> float:
        """The variance at an effect. Raises ValueError for an effect larger than the room for it."""
        chance, added = self._added(effect)
        return self.variance * (1 - chance) + added

    def without(self, effect: float) -> DifferenceVariance:
        """The same where `variance` is that observed at an effect, which this takes out; what `at` inverts."""
        chance, added = self._added(effect)
        variance = (self.variance - added) / (1 - chance) if chance < 1 else self.variance
        return replace(self, variance=min(max(variance, 0.0), self.variance))

    def _added(self, effect: float) -> tuple[float, float]:
        """The chance that an answer turns, and the variance that comes of it.

        The run's mean y becomes y + h (1 - y) in expectation. The difference d has half its variance in common with y,
        so that Var(d - h y) = (1 - h) Var(d) + h² Var(y).
        """
        room = room_for(effect, self.accuracy)
        chance = min(abs(effect) / room, 1.0) if effect else 0.0
        return chance, chance**2 * self.mean_variance + chance * (1 - chance) * room / self.samples


def room_for(effect: float, accuracy: float) -> float:
    """The largest effect in that direction. Raises ValueError for one that is larger."""
    room = 1 - accuracy if effect > 0 else accuracy
    if abs(effect) > room + _STEP / 2:
        raise ValueError(
            f"an accuracy of {accuracy:g} leaves no room for an effect of {effect:g}: give one of at most {room:g}"
        )
    return room


def t_test_power(effect: float, difference: DifferenceVariance, problems: int, alpha: float) -> float:
    """The chance of a p-value of at most alpha of the two-sided paired t-test, and so nearly of the sign flips'."""
    variance, stats = difference.at(effect), scipy_stats()
    if not variance > 0:
        return float(effect != 0)
    # Over the quantiles of the estimated deviation: noncentral t distributions of SciPy are NaN for some large effects.
    freedom, shift = problems - 1, abs(effect) / np.sqrt(variance / problems)
    deviation_Q = np.sqrt(stats.chi2.ppf((np.arange(_QUANTILES) + 0.5) / _QUANTILES, freedom) / freedom)
    far_Q = stats.t.isf(alpha / 2, freedom) * deviation_Q
    return float(np.mean(stats.norm.sf(far_Q - shift) + stats.norm.cdf(-far_Q - shift)))


def mcnemar_power(effect: float, discordant: float, problems: int, alpha: float) -> float:
    """The chance of a p-value of at most alpha of McNemar's exact two-sided test.

    discordant: the fraction of problems expected to be discordant at the effect. Given how many are, the gains are
    binomial, so the power is a sum over that number (Duffy 1984; Connor 1987; Lachin 1992) and no approximation.
    Raises ValueError for a fraction below the size of the effect or above 1.
    """
    if not abs(effect) - 1e-9 <= discordant <= 1 + 1e-9:
        raise ValueError(
            f"{discordant:g} of the problems cannot be discordant at an effect of {effect:g}: give a fraction from the "
            "size of the effect to 1"
        )
    if discordant <= 0:
        return 0.0
    binom, discordant = scipy_stats().binom, min(discordant, 1.0)
    few, many = (int(binom.ppf(tail, problems, discordant)) for tail in (1e-9, 1 - 1e-9))
    count_K = np.arange(few, many + 1)
    # The largest number of losses (or gains) at which the two-sided p-value, twice the tail, is at most alpha.
    largest_K = binom.ppf(alpha / 2, count_K, 0.5)
    largest_K = np.where(2 * binom.cdf(largest_K, count_K, 0.5) > alpha, largest_K - 1, largest_K)
    gain = min((1 + abs(effect) / discordant) / 2, 1.0)
    rejects_K = binom.cdf(largest_K, count_K, gain) + binom.cdf(largest_K, count_K, 1 - gain)
    return float(binom.pmf(count_K, problems, discordant) @ rejects_K)


def discordant_at(effect: float, discordant: float, accuracy: float) -> float:
    """The fraction of problems with one sample that are discordant at an effect, from that without one.

    Without an effect, gains and losses are equal. One of δ then takes the fraction δ / (1 - accuracy) of the losses.
    """
    room = room_for(effect, accuracy)
    losses = min(discordant / 2, room)
    return min(abs(effect) + 2 * losses * max(1 - abs(effect) / room, 0.0), 1.0) if effect else 2 * losses


def discordant_without_effect(gained: int, lost: int, problems: int, accuracy: float) -> float:
    """What `discordant_at` inverts, from observed counts: the observed difference less its noise is the effect."""
    discordant, difference = (gained + lost) / problems, (gained - lost) / problems
    effect = denoised(difference, discordant / problems)
    room = 1 - accuracy if difference > 0 else accuracy
    return min((discordant - abs(effect)) / (1 - abs(effect) / room), discordant) if abs(effect) < room else discordant


def denoised(difference: float, variance: float) -> float:
    """The effect that an observed difference shows beyond its own variance, with its sign."""
    return float(np.copysign(np.sqrt(max(difference**2 - variance, 0.0)), difference))


def smallest_detectable(power_at: Callable[[float], float], accuracy: float, power: float) -> float | None:
    """The size of the smallest improvement that `power_at` gives this power, to 0.01 percentage points.

    Where no improvement has it, accuracies above 1 being impossible, that of the smallest loss; None if none has.
    """
    for sign, room in ((1, 1 - accuracy), (-1, accuracy)):
        steps = int(room / _STEP + 1e-9)

        def detects(step: int, sign: int = sign) -> bool:
            return power_at(sign * step * _STEP) >= power

        if steps and detects(steps):
            return (bisect_left(range(1, steps + 1), True, key=detects) + 1) * _STEP
    return None
