"""The explanations fitted to one probe: all three together, and what each takes off the movement.

The parts of a movement are Shapley values: what a part adds to the gain, averaged over the orders in which the parts
can be added, each with the numbers of the joint fit. What no part explains is drift; all four add up to KL(p_b ‖ p_a).
A part that opposes another, as a raised temperature opposes self-distillation, takes little off or adds to it; what the
gain would lose without it tells that it is there.

Resamples do not fit again: numbers move by their influence functions (one step of Newton's method), gains with them.

Shape legend: T traces, N positions, C = 8 subsets of the parts, R resamples.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .load_probes import Collected
from .mixture_model import PARTS, Explained
from .target_distribution import ratio

DRIFT = "drift"
_SUBSETS = list(itertools.product((0, 1), repeat=len(PARTS)))
_WITHOUT = [_SUBSETS.index(tuple(int(one != part) for one in PARTS)) for part in PARTS]


@dataclass(frozen=True)
class Fit:
    """The joint fit of a probe."""

    theta: np.ndarray
    """(s, b, g)"""
    sums_TX: np.ndarray
    """of each trace: positions, KL, gain of each subset, and influence on the numbers"""
    slope_C3: np.ndarray
    """derivatives of the subsets' mean gains in the numbers"""

    def numbers(self, sums_RX: np.ndarray) -> np.ndarray:
        """[R, 3]: the numbers over resampled traces."""
        found: np.ndarray = self.theta + sums_RX[..., -len(PARTS) :]
        return found

    def parts(self, sums_RX: np.ndarray) -> np.ndarray:
        """[R, 7], nats a position: of each of PARTS and of drift; then what the joint gain loses without each part."""
        count_R1, kl_R = sums_RX[..., :1], sums_RX[..., 1]
        moved_R3 = sums_RX[..., -len(PARTS) :]
        gains_RC = sums_RX[..., 2 : 2 + len(_SUBSETS)] / count_R1 + moved_R3 @ self.slope_C3.T
        parts_R3 = gains_RC @ _SHAPLEY
        drift_R = kl_R / count_R1[..., 0] - gains_RC[..., -1]
        lost_R3 = gains_RC[..., -1:] - gains_RC[..., _WITHOUT]
        return np.concatenate([parts_R3, drift_R[..., None], lost_R3], -1)


def fit(one: Collected) -> Fit:
    """The joint fit. The influence of a trace on a number is minus the inverse curvature times its slope."""
    explained = _explained(one)
    theta = explained.best()
    gain_N, slope_N3 = explained.gains(theta)
    told = np.flatnonzero((theta != 0) & (theta < explained.high) & (theta > explained.low))
    influence_N3 = np.zeros_like(slope_N3)
    if len(told):
        inverse = np.linalg.pinv(explained.curvature(theta, slope_N3.mean(0), told), rcond=1e-10, hermitian=True)
        influence_N3[:, told] = -(slope_N3[:, told] @ inverse) / len(gain_N)
    columns = [np.ones(len(gain_N)), one.moved.kl_ba_N]
    slopes = []
    for subset in _SUBSETS:
        gain_N, slope_N3 = explained.gains(theta * subset)
        columns.append(gain_N)
        slopes.append(slope_N3.mean(0) * subset)
    traces = len(one.traces)
    sums = [np.bincount(one.trace_N, column_N, traces) for column_N in [*columns, *influence_N3.T]]
    return Fit(theta, np.stack(sums, 1), np.stack(slopes))


def reproduced(seeds: Sequence[Collected], fits: Sequence[Fit]) -> float | None:
    """How alike the drifts of an arm's seeds are: the correlation of what the fits leave over, pooled over positions.

    Near 0 where what no explanation covers is chance, near 1 where another training of the arm does the same again. On
    the top list under the baseline's distribution; None for one seed.
    """
    if len(seeds) < 2 or len({len(one.trace_N) for one in seeds}) > 1:
        return None
    left = []
    for one, its in zip(seeds, fits, strict=True):
        explained = _explained(one)
        weight_NK = explained.p_NK / explained.p_NK.sum(1, keepdims=True)
        left_NK = explained.left_over(its.theta)
        left.append(np.sqrt(weight_NK) * (left_NK - (weight_NK * left_NK).sum(1, keepdims=True)))
    pairs = [
        (first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum())
        for first, second in itertools.combinations(left, 2)
    ]
    mean = float(np.mean(pairs))
    return mean if np.isfinite(mean) else None


def _explained(one: Collected) -> Explained:
    train = one.probe.settings["train"]
    return Explained(one.moved, ratio(one.moved.logp_a_NK, train["temperature"], train["top_k"], train["top_p"]))


def _shapley() -> np.ndarray:
    """[C, 3]: the weights that make values of the parts from gains of the subsets."""
    weights = np.zeros((len(_SUBSETS), len(PARTS)))
    n = len(PARTS)
    for place, subset in enumerate(_SUBSETS):
        size = sum(subset)
        for part in range(n):
            if subset[part]:
                weights[place, part] = math.factorial(size - 1) * math.factorial(n - size) / math.factorial(n)
            else:
                weights[place, part] = -math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
    return weights


_SHAPLEY = _shapley()
