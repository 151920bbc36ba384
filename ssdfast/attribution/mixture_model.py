"""Explanations of a movement: models made of the baseline by a few numbers, compared with the trained one in nats.

    log m(v) = log p_a(v) + log(1 - s + s q(v)/p_a(v)) + b log p_a(v) + g [v ends] - log Z

s is the strength of self-distillation toward q (at b = g = 0, m is the mixture of baseline and q), 1 + b the inverse of
a temperature, and g the log-odds that the tokens gain which end the text or the thinking. The three numbers are the
same at all positions. What a model m explains of the movement is its gain, in nats a position:

    KL(p_b ‖ p_a) - KL(p_b ‖ m) = E_b[log m - log p_a]

so the best numbers are those of the greatest likelihood. All of it follows from a probe's columns: q lives on the top
list, E_b[log p_a] = -(H(p_b) + KL(p_b ‖ p_a)) covers the whole vocabulary, and the normaliser needs Σ p_a^(1 + b),
which the columns lse_T hold for some temperatures and which is interpolated between them outside of the top list.

Shape legend: N positions, K entries of the top lists, M nodes of the interpolation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

PARTS = ("ssd", "temperature", "ending")
"""what the numbers s, b and g stand for"""

_FLOOR = 1e-9  # of the mass outside the lists: below, rounding of the logsumexps


@dataclass(frozen=True)
class Movement:
    """What is needed of positions to explain their movement; float64, nats. Every kl_ba is finite."""

    logp_a_NK: np.ndarray
    logp_b_NK: np.ndarray
    ends_NK: np.ndarray
    entropy_b_N: np.ndarray
    kl_ba_N: np.ndarray
    ending_N2: np.ndarray
    """mass on tokens that end, of baseline and trained model"""
    log_mass_NM: np.ndarray
    """log Σ_v p_a(v)^beta at the nodes"""
    beta_M: np.ndarray
    """the nodes, 1 among them or not"""


class Explained:
    """Gains of a movement's positions under models (s, b, g), for one q.

    ratio_NK: q / p_a on the top list, as `prediction.ratio` gives it.
    """

    def __init__(self, moved: Movement, ratio_NK: np.ndarray) -> None:
        self.logp_NK = np.maximum(moved.logp_a_NK, -100)
        self.p_NK = np.exp(self.logp_NK)
        self.ratio_NK, self.ends_NK = ratio_NK, moved.ends_NK
        self.p_b_NK = np.exp(moved.logp_b_NK)
        self.unlisted_b_N = np.maximum(1 - self.p_b_NK.sum(1), 0)
        self.mean_logp_N = -(moved.entropy_b_N + moved.kl_ba_N)
        self.ending_b_N = moved.ending_N2[:, 1]
        listed_N = np.where(self.ends_NK, self.p_NK, 0).sum(1)
        # Of the tokens that end those outside the list are few, as one they are taken.
        self.log_ending_N = np.log(np.maximum(moved.ending_N2[:, 0] - listed_N, 1e-12))
        self.beta_M, self.log_rest_NM = self._rest(moved)
        # A spline is linear in its values: that through the unit vectors gives the weights of any.
        self.spline = CubicSpline(self.beta_M, np.eye(len(self.beta_M)))
        low, high = self.beta_M.min() - 1, self.beta_M.max() - 1
        # Below 0 the mixture leaves toward the opposite; all of it stays a distribution.
        self.low = np.array([-0.5 / max(ratio_NK.max(initial=1.0), 2.0), low, -20.0])
        self.high = np.array([1 - 1e-4, high, 20.0])

    def __len__(self) -> int:
        return len(self.mean_logp_N)

    def _rest(self, moved: Movement) -> tuple[np.ndarray, np.ndarray]:
        """Nodes, and there the log of Σ p_a^beta over the tokens that are not listed."""
        beta_M = np.unique(np.append(moved.beta_M, 1.0))
        log_rest = []
        for beta in beta_M:
            given = np.flatnonzero(moved.beta_M == beta)
            log_mass_N = moved.log_mass_NM[:, given[0]] if len(given) else np.zeros(len(moved.kl_ba_N))
            mass_N = np.exp(log_mass_N)
            rest_N = mass_N - np.exp(beta * self.logp_NK).sum(1)
            log_rest.append(np.log(np.maximum(rest_N, _FLOOR * mass_N)))
        return beta_M, np.stack(log_rest, 1)

    def _rest_at(self, beta: float) -> tuple[np.ndarray, np.ndarray]:
        """Mass outside the list and its derivative, [N] each: its log is a cubic spline through the nodes."""
        rest_N = np.exp(self.log_rest_NM @ self.spline(beta))
        return rest_N, rest_N * (self.log_rest_NM @ self.spline(beta, 1))

    def gains(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(gain [N], its derivatives [N, 3]) of the model `theta` = (s, b, g)."""
        s, b, g = theta
        weight_NK = 1 - s + s * self.ratio_NK
        tempered_NK = np.exp((1 + b) * self.logp_NK) * np.where(self.ends_NK, np.exp(g), 1.0)
        mass_NK = tempered_NK * weight_NK
        rest_N, rest_slope_N = self._rest_at(1 + b)
        ending_N = np.exp((1 + b) * self.log_ending_N)
        rest_N = rest_N + np.expm1(g) * ending_N
        rest_slope_N = rest_slope_N + np.expm1(g) * ending_N * self.log_ending_N
        total_N = mass_NK.sum(1) + (1 - s) * rest_N
        gain_N = (
            (self.p_b_NK * np.log(weight_NK)).sum(1)
            + self.unlisted_b_N * np.log1p(-s)
            + b * self.mean_logp_N
            + g * self.ending_b_N
            - np.log(total_N)
        )
        of_s_N = (
            (self.p_b_NK * (self.ratio_NK - 1) / weight_NK).sum(1)
            - self.unlisted_b_N / (1 - s)
            - ((tempered_NK * (self.ratio_NK - 1)).sum(1) - rest_N) / total_N
        )
        of_b_N = self.mean_logp_N - ((mass_NK * self.logp_NK).sum(1) + (1 - s) * rest_slope_N) / total_N
        ending_mass_N = np.where(self.ends_NK, mass_NK, 0).sum(1) + (1 - s) * np.exp(g) * ending_N
        of_g_N = self.ending_b_N - ending_mass_N / total_N
        return gain_N, np.stack([of_s_N, of_b_N, of_g_N], 1)

    def left_over(self, theta: np.ndarray) -> np.ndarray:
        """[N, K]: log p_b - log m on the top list, up to a constant of each position."""
        s, b, g = theta
        log_m_NK = np.log(1 - s + s * self.ratio_NK) + (1 + b) * self.logp_NK + g * self.ends_NK
        found: np.ndarray = np.log(np.maximum(self.p_b_NK, 1e-30)) - log_m_NK
        return found

    def curvature(self, theta: np.ndarray, slope: np.ndarray, of: np.ndarray) -> np.ndarray:
        """[n, n]: second derivatives of the mean gain in n of the numbers, from differences of the first, `slope`."""
        found = []
        for i in of:
            step = np.zeros(3)
            step[i] = 1e-4 if theta[i] + 1e-4 <= self.high[i] else -1e-4
            found.append((self.gains(theta + step)[1].mean(0) - slope)[of] / step[i])
        matrix = np.stack(found) if found else np.zeros((0, 0))
        return (matrix + matrix.T) / 2

    def best(self, free: Sequence[str] = PARTS) -> np.ndarray:
        """The numbers (s, b, g) of the greatest mean gain; those not `free` are 0.

        Newton's method, held within bounds: s under 1, a temperature within those of the probe. A number that the
        positions say nothing about stays 0.
        """
        open_ = np.array([name in free for name in PARTS])
        theta = np.zeros(3)
        gain = 0.0
        for _ in range(_STEPS):
            slope = self.gains(theta)[1].mean(0)
            at_bound = ((theta >= self.high) & (slope > 0)) | ((theta <= self.low) & (slope < 0))
            told = np.flatnonzero(open_ & ~at_bound)
            matrix = self.curvature(theta, slope, told)
            said = np.diag(matrix) < -1e-12
            if not said.any():
                break
            told, matrix = told[said], matrix[np.ix_(said, said)]
            step = np.zeros(3)
            step[told] = _uphill(matrix, slope[told])
            theta, gain, better = self._along(theta, step, gain)
            if not better or np.abs(step * slope).sum() < 1e-12:
                break
        return theta

    def _along(self, theta: np.ndarray, step: np.ndarray, gain: float) -> tuple[np.ndarray, float, bool]:
        """The farthest of halved steps that is better."""
        for _ in range(_HALVINGS):
            ahead = np.clip(theta + step, self.low, self.high)
            reached = float(self.gains(ahead)[0].mean())
            if reached > gain:
                return ahead, reached, True
            step = step / 2
        return theta, gain, False


_STEPS, _HALVINGS = 30, 20


def _uphill(matrix: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Newton's step; where the gain is not concave, along the concave directions and the slope in the others."""
    values, vectors = np.linalg.eigh(matrix)
    size = np.maximum(np.abs(values), 1e-9 * np.abs(values).max())
    step: np.ndarray = vectors @ ((vectors.T @ slope) / size)
    return step
