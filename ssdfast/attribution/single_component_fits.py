"""Each component fitted alone, and the sampling parameters that explain the most.

Each fit states the fraction of KL(p_trained ‖ p_base) that it leaves unexplained. The search asks whether sampling
parameters other than those of the training samples fit better: (T, k, p) and a strength s, where the trained model is
(1 - s) p_base + s q.

Shape legend: N positions, K entries of the top lists.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from ..config import SamplingParams
from .load_probes import take
from .mixture_model import COMPONENTS, MixtureModel, Shift
from .target_distribution import target_ratio

SEARCH_POSITIONS = 1_500
"""positions that the search uses; the best sampling parameters are then fitted to all"""
_TEMPERATURES = (0.6, 0.8, 1.0, 1.2, 1.5, 2.0)
_TOP_K = (5, 10, 20, 40, 64)
_TOP_P = (0.8, 0.9, 0.95, 1.0)
_ROUNDS = 5


def single_component_fits(shift: Shift, train_sampling: SamplingParams) -> dict[str, dict[str, float | None]]:
    """For each component its parameter and `unexplained_fraction`, None where nothing shifted. JSON."""
    params = train_sampling.temperature, train_sampling.top_k, train_sampling.top_p
    model = MixtureModel(shift, target_ratio(shift.base_logp_NK, *params))
    total = float(shift.kl_N.mean())

    def unexplained(gain: float) -> float | None:
        return (total - gain) / total if total > 0 else None

    fits: dict[str, dict[str, float | None]] = {}
    for name in COMPONENTS:
        s, b, g = model.fit((name,))
        key, value = {
            "ssd": ("ssd_strength", s),
            "temperature": ("temperature", 1 / (1 + b)),
            "eos_bias": ("eos_log_odds", g),
        }[name]
        gain = float(model.gain(np.array([s, b, g])).mean())
        fits[name] = {key: float(value), "unexplained_fraction": unexplained(gain)}
    fits["truncation"] = _truncation(shift, train_sampling, unexplained)
    return fits


def _truncation(shift: Shift, train_sampling: SamplingParams, unexplained: Any) -> dict[str, float | None]:
    positions = len(shift.kl_N)
    few = take(shift, np.linspace(0, positions - 1, min(SEARCH_POSITIONS, positions)).astype(int))
    gains: dict[tuple[float, int, float], float] = {}

    def gain(params: tuple[float, int, float]) -> float:
        if params not in gains:
            gains[params] = fit_mixture(few, target_ratio(few.base_logp_NK, *params))[1]
        return gains[params]

    t, k, p = train_sampling.temperature, train_sampling.top_k, train_sampling.top_p
    t, k, p = max(product(sorted({*_TEMPERATURES, t}), (k,), sorted({*_TOP_P, p})), key=gain)
    listed = set(range(1, few.base_logp_NK.shape[1] + 1))
    t, k, p = max(((t, top_k, p) for top_k in sorted({*_TOP_K, k} & listed)), key=gain)
    width = 0.15  # of log T: half the grid's
    for _ in range(_ROUNDS):
        t, k, p = max(((t * np.exp(width * sign), k, p) for sign in (-1, 0, 1)), key=gain)
        width /= 2
    s, reached = fit_mixture(shift, target_ratio(shift.base_logp_NK, t, k, p))
    return {
        "temperature": float(t),
        "top_k": k,
        "top_p": p,
        "ssd_strength": s,
        "unexplained_fraction": unexplained(reached),
    }


def fit_mixture(shift: Shift, ratio_NK: np.ndarray) -> tuple[float, float]:
    """(s, mean gain) of the best mixture (1 - s) p_base + s q, 0 ≤ s < 1; the gain is concave in s."""
    p_NK = np.exp(shift.trained_logp_NK)
    unlisted = float(np.maximum(1 - p_NK.sum(1), 0).sum())
    inside_NK = (p_NK > 0) & (ratio_NK != 0)
    p, push = p_NK[inside_NK], ratio_NK[inside_NK] - 1
    outside = float(p_NK[~inside_NK].sum()) + unlisted
    low, high = 0.0, 1 - 1e-4
    s = 0.5
    for _ in range(40):
        slope = (p * push / (1 + s * push)).sum() - outside / (1 - s)
        low, high = (s, high) if slope > 0 else (low, s)
        curvature = -((p * (push / (1 + s * push)) ** 2).sum() + outside / (1 - s) ** 2)
        candidate = s - slope / curvature if curvature < 0 else s
        previous, s = s, candidate if low < candidate < high else (low + high) / 2
        if abs(s - previous) < 1e-7:
            break
    gain = (p * np.log1p(s * push)).sum() + outside * np.log1p(-s)
    return float(s), float(gain) / len(shift.kl_N)
