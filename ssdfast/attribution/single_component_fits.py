"""Each explanation alone, and the search for the truncated, tempered distribution that explains the most.

Each says what share of KL(p_b ‖ p_a) it leaves. The second asks whether some other setting than the one that was
trained with fits better: (T, k, p) and a strength s, where the trained model is (1 - s) p_a + s q.

Shape legend: N positions, K entries of the top lists.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from .load_probes import taken
from .mixture_model import Explained, Movement
from .target_distribution import ratio

SEARCHED = 1_500
"""positions that the search of a setting uses; the best one is then fitted to all"""
_TEMPERATURES = (0.6, 0.8, 1.0, 1.2, 1.5, 2.0)
_TOP_K = (5, 10, 20, 40, 64)
_TOP_P = (0.8, 0.9, 0.95, 1.0)
_ROUNDS = 5


def alternatives(moved: Movement, train: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """For each explanation its numbers and `residual_share`, None where nothing moved. JSON."""
    explained = Explained(moved, ratio(moved.logp_a_NK, train["temperature"], train["top_k"], train["top_p"]))
    total = float(moved.kl_ba_N.mean())

    def left(gain: float) -> float | None:
        return (total - gain) / total if total > 0 else None

    found: dict[str, dict[str, float | None]] = {}
    for name in ("ssd", "temperature", "ending"):
        s, b, g = explained.best((name,))
        number = {"ssd": ("strength", s), "temperature": ("temperature", 1 / (1 + b)), "ending": ("log_odds", g)}[name]
        gain = float(explained.gains(np.array([s, b, g]))[0].mean())
        found[name] = {number[0]: float(number[1]), "residual_share": left(gain)}
    found["truncation"] = _truncation(moved, train, left)
    return found


def _truncation(moved: Movement, train: dict[str, Any], left: Any) -> dict[str, float | None]:
    few = taken(moved, np.linspace(0, len(moved.kl_ba_N) - 1, min(SEARCHED, len(moved.kl_ba_N))).astype(int))
    tried: dict[tuple[float, int, float], float] = {}

    def gain(setting: tuple[float, int, float]) -> float:
        if setting not in tried:
            tried[setting] = mixed(few, ratio(few.logp_a_NK, *setting))[1]
        return tried[setting]

    k = train["top_k"]
    grid = product(sorted({*_TEMPERATURES, train["temperature"]}), (k,), sorted({*_TOP_P, train["top_p"]}))
    t, k, p = max(grid, key=gain)
    t, k, p = max(((t, one, p) for one in sorted({*_TOP_K, k} & set(range(1, few.logp_a_NK.shape[1] + 1)))), key=gain)
    width = 0.15  # of log T: half the grid's
    for _ in range(_ROUNDS):
        t, k, p = max(((t * np.exp(width * way), k, p) for way in (-1, 0, 1)), key=gain)
        width /= 2
    s, reached = mixed(moved, ratio(moved.logp_a_NK, t, k, p))
    return {"temperature": float(t), "top_k": k, "top_p": p, "strength": s, "residual_share": left(reached)}


def mixed(moved: Movement, ratio_NK: np.ndarray) -> tuple[float, float]:
    """(s, mean gain) of the best mixture (1 - s) p_a + s q, 0 ≤ s < 1; the gain is concave in s."""
    p_b_NK = np.exp(moved.logp_b_NK)
    unlisted = float(np.maximum(1 - p_b_NK.sum(1), 0).sum())
    inside_NK = (p_b_NK > 0) & (ratio_NK != 0)
    p_b, push = p_b_NK[inside_NK], ratio_NK[inside_NK] - 1
    outside = float(p_b_NK[~inside_NK].sum()) + unlisted
    low, high = 0.0, 1 - 1e-4
    s = 0.5
    for _ in range(40):
        slope = (p_b * push / (1 + s * push)).sum() - outside / (1 - s)
        low, high = (s, high) if slope > 0 else (low, s)
        bend = -((p_b * (push / (1 + s * push)) ** 2).sum() + outside / (1 - s) ** 2)
        ahead = s - slope / bend if bend < 0 else s
        before, s = s, ahead if low < ahead < high else (low + high) / 2
        if abs(s - before) < 1e-7:
            break
    gain = (p_b * np.log1p(s * push)).sum() + outside * np.log1p(-s)
    return float(s), float(gain) / len(moved.kl_ba_N)
