"""Lock, fork, diffuse or mixed: what kind of place a position was for the baseline."""

from __future__ import annotations

import numpy as np

from ..config import ClassRules

POSITION_CLASSES = ("lock", "fork", "diffuse", "mixed")
LOCK, FORK, DIFFUSE, MIXED = range(4)


def classify(
    top1_N: np.ndarray, top2_N: np.ndarray, nucleus_N: np.ndarray, tail_N: np.ndarray, rules: ClassRules
) -> np.ndarray:
    """int8 [N], an index into POSITION_CLASSES, from the baseline's columns alone.

    top1_N, top2_N: probabilities of its two likeliest tokens. nucleus_N: tokens in its nucleus.
    tail_N: its mass outside the top k. A NaN meets no rule, so an invalid position is mixed.
    """
    sure_N = top1_N >= rules.lock_top1
    unsure_N = top1_N < rules.lock_top1
    lock_N = sure_N & (nucleus_N <= rules.lock_nucleus) & (tail_N <= rules.lock_tail)
    fork_N = unsure_N & (top2_N >= rules.fork_ratio * top1_N) & (tail_N <= rules.fork_tail)
    diffuse_N = unsure_N & (tail_N > rules.fork_tail)
    return np.select([lock_N, fork_N, diffuse_N], [LOCK, FORK, DIFFUSE], MIXED).astype(np.int8)


def swaps(top_ids_a_N: np.ndarray, top_ids_b_N: np.ndarray) -> np.ndarray:
    """bool [N]: the two models' likeliest tokens differ."""
    return top_ids_a_N != top_ids_b_N


def self_corrections(top_ids_a_N: np.ndarray, token_N: np.ndarray, in_class_V: np.ndarray) -> np.ndarray:
    """bool [N]: the baseline's likeliest token, or the one that was sampled, is in the self-correction class."""
    return in_class_V[np.maximum(top_ids_a_N, 0)] & (top_ids_a_N >= 0) | in_class_V[token_N]
