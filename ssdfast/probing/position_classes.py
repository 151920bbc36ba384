"""Lock, fork, diffuse or mixed: the class of a position under the baseline."""

from __future__ import annotations

import numpy as np

from ..config import PositionClassConfig

POSITION_CLASSES = ("lock", "fork", "diffuse", "mixed")
LOCK, FORK, DIFFUSE, MIXED = range(4)


def classify(
    top1_N: np.ndarray, top2_N: np.ndarray, nucleus_N: np.ndarray, tail_N: np.ndarray, config: PositionClassConfig
) -> np.ndarray:
    """int8 [N], an index into POSITION_CLASSES, from the baseline's columns alone.

    top1_N, top2_N: probabilities of its two most likely tokens. nucleus_N: tokens in its nucleus.
    tail_N: its mass outside the top k. A NaN meets no rule, so an invalid position is mixed.
    """
    sure_N = top1_N >= config.lock_min_top1
    unsure_N = top1_N < config.lock_min_top1
    lock_N = sure_N & (nucleus_N <= config.lock_max_nucleus) & (tail_N <= config.lock_max_tail)
    fork_N = unsure_N & (top2_N >= config.fork_min_ratio * top1_N) & (tail_N <= config.fork_max_tail)
    diffuse_N = unsure_N & (tail_N > config.fork_max_tail)
    return np.select([lock_N, fork_N, diffuse_N], [LOCK, FORK, DIFFUSE], MIXED).astype(np.int8)


def top1_changes(base_top1_N: np.ndarray, trained_top1_N: np.ndarray) -> np.ndarray:
    """bool [N]: the two models' most likely tokens differ."""
    return base_top1_N != trained_top1_N


def self_corrections(base_top1_N: np.ndarray, token_N: np.ndarray, in_class_V: np.ndarray) -> np.ndarray:
    """bool [N]: the baseline's most likely token, or the token in the trace, is in the self-correction class."""
    return in_class_V[np.maximum(base_top1_N, 0)] & (base_top1_N >= 0) | in_class_V[token_N]
