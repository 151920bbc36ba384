"""The components of one probe's shift, fitted together, and what each explains of it.

The components are Shapley values: what a component adds to the gain, averaged over the orders in which they can be
added, each with the parameters of the joint fit. What no component explains is the residual; all four add up to
KL(p_trained ‖ p_base). A component that opposes another, as a raised temperature opposes self-distillation, explains
little or less than nothing; the loss of gain without it shows that it is present.

Resamples are not fitted again: parameters follow their influence functions (one step of Newton's method), and gains
follow the parameters.

Shape legend: T traces, N positions, C = 8 subsets of the components, R resamples.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .load_probes import ArmProbe
from .mixture_model import COMPONENTS, MixtureModel
from .target_distribution import target_ratio

RESIDUAL = "residual"
_SUBSETS = list(itertools.product((0, 1), repeat=len(COMPONENTS)))
_WITHOUT = [_SUBSETS.index(tuple(int(other != component) for other in COMPONENTS)) for component in COMPONENTS]


@dataclass(frozen=True)
class Fit:
    """The joint fit of a probe."""

    theta: np.ndarray
    """(s, b, g)"""
    sums_TX: np.ndarray
    """of each trace: positions, KL, gain of each subset, and influence on the parameters"""
    slope_C3: np.ndarray
    """derivatives of the subsets' mean gains in the parameters"""

    def parameters(self, sums_RX: np.ndarray) -> np.ndarray:
        """[R, 3]: the parameters over resampled traces."""
        theta_R3: np.ndarray = self.theta + sums_RX[..., -len(COMPONENTS) :]
        return theta_R3

    def components(self, sums_RX: np.ndarray) -> np.ndarray:
        """[R, 7], nats per position: of each of COMPONENTS and of the residual; then the loss of joint gain without
        each component."""
        count_R1, kl_R = sums_RX[..., :1], sums_RX[..., 1]
        step_R3 = sums_RX[..., -len(COMPONENTS) :]
        gains_RC = sums_RX[..., 2 : 2 + len(_SUBSETS)] / count_R1 + step_R3 @ self.slope_C3.T
        components_R3 = gains_RC @ _SHAPLEY
        residual_R = kl_R / count_R1[..., 0] - gains_RC[..., -1]
        loss_R3 = gains_RC[..., -1:] - gains_RC[..., _WITHOUT]
        return np.concatenate([components_R3, residual_R[..., None], loss_R3], -1)


def fit(arm_probe: ArmProbe) -> Fit:
    """The joint fit. The influence of a trace on a parameter is minus the inverse curvature times its slope."""
    model = _model(arm_probe)
    theta = model.fit()
    gain_N, slope_N3 = model.gains(theta)
    indices = np.flatnonzero((theta != 0) & (theta < model.high) & (theta > model.low))
    influence_N3 = np.zeros_like(slope_N3)
    if len(indices):
        inverse = np.linalg.pinv(model.curvature(theta, slope_N3.mean(0), indices), rcond=1e-10, hermitian=True)
        influence_N3[:, indices] = -(slope_N3[:, indices] @ inverse) / len(gain_N)
    columns = [np.ones(len(gain_N)), arm_probe.shift.kl_N]
    slopes = []
    for subset in _SUBSETS:
        gain_N, slope_N3 = model.gains(theta * subset)
        columns.append(gain_N)
        slopes.append(slope_N3.mean(0) * subset)
    traces = len(arm_probe.traces)
    sums = [np.bincount(arm_probe.trace_N, column_N, traces) for column_N in [*columns, *influence_N3.T]]
    return Fit(theta, np.stack(sums, 1), np.stack(slopes))


def residual_correlation(seeds: Sequence[ArmProbe], fits: Sequence[Fit]) -> float | None:
    """The correlation of the residuals of an arm's seeds, pooled over positions: the mean over pairs of seeds.

    Near 0 where the residual is chance, near 1 where another training of the arm gives the same one. On the top list
    under the baseline's distribution; None for one seed.
    """
    if len(seeds) < 2 or len({len(seed.trace_N) for seed in seeds}) > 1:
        return None
    residuals = []
    for seed, seed_fit in zip(seeds, fits, strict=True):
        model = _model(seed)
        weight_NK = model.p_NK / model.p_NK.sum(1, keepdims=True)
        residual_NK = model.residual(seed_fit.theta)
        residuals.append(np.sqrt(weight_NK) * (residual_NK - (weight_NK * residual_NK).sum(1, keepdims=True)))
    correlations = [
        (first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum())
        for first, second in itertools.combinations(residuals, 2)
    ]
    mean = float(np.mean(correlations))
    return mean if np.isfinite(mean) else None


def _model(arm_probe: ArmProbe) -> MixtureModel:
    train = arm_probe.probe.settings["train_sampling"]
    ratio_NK = target_ratio(arm_probe.shift.base_logp_NK, train["temperature"], train["top_k"], train["top_p"])
    return MixtureModel(arm_probe.shift, ratio_NK)


def _shapley() -> np.ndarray:
    """[C, 3]: the weights that turn gains of the subsets into Shapley values of the components."""
    weights = np.zeros((len(_SUBSETS), len(COMPONENTS)))
    n = len(COMPONENTS)
    for row, subset in enumerate(_SUBSETS):
        size = sum(subset)
        for column in range(n):
            if subset[column]:
                weights[row, column] = math.factorial(size - 1) * math.factorial(n - size) / math.factorial(n)
            else:
                weights[row, column] = -math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
    return weights


_SHAPLEY = _shapley()
