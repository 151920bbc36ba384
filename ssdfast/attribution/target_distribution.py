"""The truncated distribution on the baseline's most likely tokens: the target that self-distillation trains toward.

Shape legend: N positions, K entries of the top lists.
"""

from __future__ import annotations

import numpy as np

from ..sampling_distribution import truncated_distribution


def target_ratio(logp_NK: np.ndarray, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """float64 [N, K]: q / p_base on the listed tokens; 0 outside the support, as for every token not listed."""
    q_NK = truncated_distribution(logp_NK, temperature, top_k, top_p)
    ratio_NK = np.zeros_like(logp_NK, dtype=np.float64)
    ratio_NK[:, :top_k] = np.where(q_NK > 0, q_NK * np.exp(-np.maximum(logp_NK[:, :top_k], -80)), 0)
    return ratio_NK
