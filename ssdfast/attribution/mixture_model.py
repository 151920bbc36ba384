"""A model of the shift: the baseline changed by three parameters, compared with the trained model in nats.

    log m(v) = log p_base(v) + log(1 - s + s q(v)/p_base(v)) + b log p_base(v) + g [v is EOS] - log Z

s is the strength of self-distillation toward q (at b = g = 0, m is the mixture of baseline and q), 1 + b the inverse of
a temperature, and g the log-odds that are added to the tokens that end the text or the thinking. The three parameters
are the same at all positions. A model m explains its gain of the shift, in nats per position:

    KL(p_trained ‖ p_base) - KL(p_trained ‖ m) = E_trained[log m - log p_base]

so the best parameters are those of maximum likelihood. A probe's columns suffice: q is zero outside the top list,
E_trained[log p_base] = -(H(p_trained) + KL(p_trained ‖ p_base)) covers the whole vocabulary, and the normaliser needs
Σ p_base^(1 + b), which the columns lse_T hold at some temperatures; between these it is interpolated, outside of the
top list.

Shape legend: N positions, K entries of the top lists, M nodes of the interpolation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline

COMPONENTS = ("ssd", "temperature", "eos_bias")
"""the components of the shift that s, b and g describe"""

_FLOOR = 1e-9  # of the mass outside the lists: less is rounding of the logsumexps


@dataclass(frozen=True)
class Shift:
    """The columns of positions that the model needs; float64, nats. Every KL is finite."""

    base_logp_NK: np.ndarray
    trained_logp_NK: np.ndarray
    is_eos_NK: np.ndarray
    trained_entropy_N: np.ndarray
    kl_N: np.ndarray
    """KL(trained ‖ baseline)"""
    eos_mass_N2: np.ndarray
    """probability of ending the text or the thinking, of baseline and trained model"""
    log_mass_NM: np.ndarray
    """log Σ_v p_base(v)^beta at the nodes"""
    beta_M: np.ndarray
    """the nodes, which may include 1"""


class MixtureModel:
    """Gains of a shift's positions under models (s, b, g), for one q.

    ratio_NK: q / p_base on the top list, from `target_ratio`.
    """

    def __init__(self, shift: Shift, ratio_NK: np.ndarray) -> None:
        self.logp_NK = np.maximum(shift.base_logp_NK, -100)
        self.p_NK = np.exp(self.logp_NK)
        self.ratio_NK, self.push_NK, self.is_eos_NK = ratio_NK, ratio_NK - 1, shift.is_eos_NK
        self.trained_p_NK = np.exp(shift.trained_logp_NK)
        self.unlisted_N = np.maximum(1 - self.trained_p_NK.sum(1), 0)
        self.mean_logp_N = -(shift.trained_entropy_N + shift.kl_N)
        self.trained_eos_N = shift.eos_mass_N2[:, 1]
        listed_N = np.where(self.is_eos_NK, self.p_NK, 0).sum(1)
        # The EOS tokens outside the list are few and count as one token.
        self.log_eos_N = np.log(np.maximum(shift.eos_mass_N2[:, 0] - listed_N, 1e-12))
        self.beta_M, self.log_rest_NM = self._rest(shift)
        self.spline = CubicSpline(self.beta_M, self.log_rest_NM, axis=1).c
        self._latest: tuple[bytes, _Normalizer] | None = None
        low, high = self.beta_M.min() - 1, self.beta_M.max() - 1
        # Below 0 the mixture shifts away from q; it remains a distribution.
        self.low = np.array([-0.5 / max(ratio_NK.max(initial=1.0), 2.0), low, -20.0])
        self.high = np.array([1 - 1e-4, high, 20.0])

    def __len__(self) -> int:
        return len(self.mean_logp_N)

    def _rest(self, shift: Shift) -> tuple[np.ndarray, np.ndarray]:
        """The nodes, and at these the log of Σ p_base^beta over the tokens that are not listed."""
        beta_M = np.unique(np.append(shift.beta_M, 1.0))
        log_rest = []
        for beta in beta_M:
            places = np.flatnonzero(shift.beta_M == beta)
            log_mass_N = shift.log_mass_NM[:, places[0]] if len(places) else np.zeros(len(shift.kl_N))
            mass_N = np.exp(log_mass_N)
            rest_N = mass_N - np.exp(beta * self.logp_NK).sum(1)
            log_rest.append(np.log(np.maximum(rest_N, _FLOOR * mass_N)))
        return beta_M, np.stack(log_rest, 1)

    def _rest_at(self, beta: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mass outside the list and two derivatives, [N] each: its log is a cubic spline through the nodes."""
        piece = int(np.clip(np.searchsorted(self.beta_M, beta, side="right") - 1, 0, len(self.beta_M) - 2))
        x = beta - self.beta_M[piece]
        c3_N, c2_N, c1_N, c0_N = self.spline[:, piece]
        slope_N, bend_N = c1_N + x * (2 * c2_N + 3 * x * c3_N), 2 * c2_N + 6 * x * c3_N
        rest_N = np.exp(c0_N + x * (c1_N + x * (c2_N + x * c3_N)))
        return rest_N, rest_N * slope_N, rest_N * (slope_N**2 + bend_N)

    def _normalizer(self, theta: np.ndarray) -> _Normalizer:
        """At theta; the latest is kept, since a fit asks for the gains and the curvature of every point."""
        key = theta.tobytes()
        if self._latest is None or self._latest[0] != key:
            self._latest = key, self._new_normalizer(theta)
        return self._latest[1]

    def _new_normalizer(self, theta: np.ndarray) -> _Normalizer:
        s, b, g = theta
        weight_NK = 1 - s + s * self.ratio_NK
        tempered_NK = np.exp((1 + b) * self.logp_NK)
        if g:
            tempered_NK = np.where(self.is_eos_NK, np.exp(g) * tempered_NK, tempered_NK)
        mass_NK = tempered_NK * weight_NK
        rest_N, rest_b_N, rest_bb_N = self._rest_at(1 + b)
        eos_N = np.exp((1 + b) * self.log_eos_N)
        added_N = np.expm1(g) * eos_N
        rest_N = rest_N + added_N
        rest_b_N = rest_b_N + added_N * self.log_eos_N
        rest_bb_N = rest_bb_N + added_N * self.log_eos_N**2
        total_N = mass_NK.sum(1) + (1 - s) * rest_N
        return _Normalizer(weight_NK, tempered_NK, mass_NK, rest_N, rest_b_N, rest_bb_N, np.exp(g) * eos_N, total_N)

    def gain(self, theta: np.ndarray) -> np.ndarray:
        """[N]: the gain of the model theta = (s, b, g)."""
        s, b, g = theta
        z = self._normalizer(theta)
        gain_N: np.ndarray = (
            _dot(self.trained_p_NK, np.log(z.weight_NK))
            + self.unlisted_N * np.log1p(-s)
            + b * self.mean_logp_N
            + g * self.trained_eos_N
            - np.log(z.total_N)
        )
        return gain_N

    def slopes(self, theta: np.ndarray) -> np.ndarray:
        """[N, 3]: the derivatives of the gain."""
        s, _, _ = theta
        z = self._normalizer(theta)
        total_N = z.total_N
        slope_s_N = (
            _dot(self.trained_p_NK, self.push_NK / z.weight_NK)
            - self.unlisted_N / (1 - s)
            - (_dot(z.tempered_NK, self.push_NK) - z.rest_N) / total_N
        )
        slope_b_N = self.mean_logp_N - (_dot(z.mass_NK, self.logp_NK) + (1 - s) * z.rest_b_N) / total_N
        slope_g_N = self.trained_eos_N - (_dot(z.mass_NK, self.is_eos_NK) + (1 - s) * z.eos_N) / total_N
        return np.stack([slope_s_N, slope_b_N, slope_g_N], 1)

    def curvature(self, theta: np.ndarray) -> np.ndarray:
        """[3, 3]: second derivatives of the mean gain at theta = (s, b, g)."""
        s, _, _ = theta
        z = self._normalizer(theta)
        total_N = z.total_N
        pushed_NK = z.tempered_NK * self.push_NK
        # The normalizer's derivatives over itself; its second one in s is 0, and in g it is the first.
        first_N3 = (
            np.stack(
                [
                    pushed_NK.sum(1) - z.rest_N,
                    _dot(z.mass_NK, self.logp_NK) + (1 - s) * z.rest_b_N,
                    _dot(z.mass_NK, self.is_eos_NK) + (1 - s) * z.eos_N,
                ],
                1,
            )
            / total_N[:, None]
        )
        bb_N = _dot(z.mass_NK, self.logp_NK**2) + (1 - s) * z.rest_bb_N
        sb_N = _dot(pushed_NK, self.logp_NK) - z.rest_b_N
        sg_N = _dot(pushed_NK, self.is_eos_NK) - z.eos_N
        bg_N = _dot(np.where(self.is_eos_NK, z.mass_NK, 0), self.logp_NK) + (1 - s) * z.eos_N * self.log_eos_N
        sb, bb, sg, bg = ((part_N / total_N).mean() for part_N in (sb_N, bb_N, sg_N, bg_N))
        second = np.array([[0.0, sb, sg], [sb, bb, bg], [sg, bg, first_N3[:, 2].mean()]])
        matrix: np.ndarray = first_N3.T @ first_N3 / len(total_N) - second
        outside_N = self.unlisted_N / (1 - s) ** 2
        matrix[0, 0] -= (_dot(self.trained_p_NK, (self.push_NK / z.weight_NK) ** 2) + outside_N).mean()
        return matrix

    def residual(self, theta: np.ndarray) -> np.ndarray:
        """[N, K]: log p_trained - log m on the top list, up to a constant per position."""
        s, b, g = theta
        log_m_NK = np.log(1 - s + s * self.ratio_NK) + (1 + b) * self.logp_NK + g * self.is_eos_NK
        residual_NK: np.ndarray = np.log(np.maximum(self.trained_p_NK, 1e-30)) - log_m_NK
        return residual_NK

    def information(self) -> np.ndarray:
        """[3]: the curvature of the mean gain in each parameter where the trained model is the baseline.

        A small s, b or g alone is a shift of half its square times this, in nats per position.
        """
        matrix = self.curvature(np.zeros(3))
        chi_square_N = (self.p_NK * (self.ratio_NK - 1) ** 2).sum(1) + np.maximum(1 - self.p_NK.sum(1), 0)
        return np.maximum([chi_square_N.mean(), *-np.diag(matrix)[1:]], 0.0)

    def fit(self, components: Sequence[str] = COMPONENTS) -> np.ndarray:
        """The parameters (s, b, g) of the largest mean gain; those of components that are left out are 0.

        Newton's method within bounds: s under 1, a temperature within those of the probe. A parameter on which the gain
        does not depend stays 0.
        """
        is_free = np.array([name in components for name in COMPONENTS])
        theta = np.zeros(3)
        gain = 0.0
        for _ in range(_STEPS):
            slope = self.slopes(theta).mean(0)
            at_bound = ((theta >= self.high) & (slope > 0)) | ((theta <= self.low) & (slope < 0))
            matrix = self.curvature(theta)
            indices = np.flatnonzero(is_free & ~at_bound & (np.diag(matrix) < -1e-12))
            if not len(indices):
                break
            step = np.zeros(3)
            step[indices] = _uphill(matrix[np.ix_(indices, indices)], slope[indices])
            theta, gain, better = self._along(theta, step, gain)
            if not better or np.abs(step * slope).sum() < 1e-12:
                break
        return theta

    def _along(self, theta: np.ndarray, step: np.ndarray, gain: float) -> tuple[np.ndarray, float, bool]:
        """The longest of the halved steps that improves the gain."""
        for _ in range(_HALVINGS):
            ahead = np.clip(theta + step, self.low, self.high)
            reached = float(self.gain(ahead).mean())
            if reached > gain:
                return ahead, reached, True
            step = step / 2
        return theta, gain, False


_STEPS, _HALVINGS = 30, 20


class _Normalizer(NamedTuple):
    """What Z is made of, without its sums: the listed tokens, and the mass of all others."""

    weight_NK: np.ndarray
    tempered_NK: np.ndarray
    mass_NK: np.ndarray
    rest_N: np.ndarray
    rest_b_N: np.ndarray
    rest_bb_N: np.ndarray
    """both derivatives in b"""
    eos_N: np.ndarray
    total_N: np.ndarray


def _dot(first_NK: np.ndarray, second_NK: np.ndarray) -> np.ndarray:
    """[N]: the sum of products of each row."""
    dot_N: np.ndarray = np.einsum("nk,nk->n", first_NK, second_NK)
    return dot_N


def _uphill(matrix: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Newton's step; where the gain is not concave, along the concave directions and the slope in the others."""
    values, vectors = np.linalg.eigh(matrix)
    size = np.maximum(np.abs(values), 1e-9 * np.abs(values).max())
    step: np.ndarray = vectors @ ((vectors.T @ slope) / size)
    return step
