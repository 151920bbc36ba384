"""The truncated distribution on the baseline's most likely tokens: the target that self-distillation trains toward.

Shape legend: N positions, K entries of the top lists.
"""

from __future__ import annotations

import numpy as np


def truncate(logp_NK: np.ndarray, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """float64 [N, K]: probabilities of the listed tokens after temperature, top-k and top-p, 0 outside the support.

    logp_NK: log-probabilities by falling rank. top_k: 1 to K, so that the support is within the list.
    """
    logp_NK = logp_NK[:, :top_k] / temperature
    q_NK = np.exp(logp_NK - logp_NK[:, :1])
    q_NK /= q_NK.sum(1, keepdims=True)
    mass_before_NK = np.cumsum(q_NK, 1) - q_NK
    q_NK[mass_before_NK >= top_p] = 0
    return q_NK / q_NK.sum(1, keepdims=True)


def target_ratio(logp_NK: np.ndarray, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """float64 [N, K]: q / p_base on the listed tokens; 0 outside the support, as for every token not listed."""
    q_NK = truncate(logp_NK, temperature, top_k, top_p)
    ratio_NK = np.zeros_like(logp_NK, dtype=np.float64)
    ratio_NK[:, :top_k] = np.where(q_NK > 0, q_NK * np.exp(-np.maximum(logp_NK[:, :top_k], -80)), 0)
    return ratio_NK
