"""Groups of positions: by class, by the token's class, by the distance to the end of thinking, by correctness.

Shape legend: N positions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .probe_reader import Positions

DISTANCES = (16, 64, 256, 1024)
"""tokens before the end of thinking at which a bucket ends"""

_DISTANCE_NAMES = ("after", *(f"under {n}" for n in DISTANCES), f"{DISTANCES[-1]} and more")
_CORRECTNESS = {1: "correct", 0: "incorrect", -1: "unknown"}
CLEAR_TOP1 = 0.8
"""probability of the baseline's top token from which on a position is clear"""
FIT_CLASSES = ("clear_lock", "close_lock", "fork", "diffuse", "clear_mixed", "mixed")
"""the classes of positions that the joint fit tells apart: the position classes, of which locks and mixed positions are
clear or not"""
Name = tuple[str, str]
"""kind of group and the group: ("position_class", "fork")"""


def names(token_classes: tuple[str, ...]) -> list[Name]:
    """All groups in the order of `masks`; the first is of all positions."""
    return [
        ("all", "all"),
        *(("lock_kind", name) for name in ("strict", "top1_changed", "self_correction")),
        *(("position_class", name) for name in ("fork", "diffuse", "mixed")),
        *(("token_class", name) for name in token_classes),
        *(("tokens_to_think_end", name) for name in _DISTANCE_NAMES),
        *(("correct", name) for name in _CORRECTNESS.values()),
    ]


def masks(positions: Positions, token_classes: tuple[str, ...]) -> Iterator[np.ndarray]:
    """bool [N] for each of `names`.

    A lock is strict where both models have the same top-1 token, top1_changed where they do not; either can be a
    self-correction too.
    """
    yield np.ones(len(positions.trace_N), bool)
    lock_N = positions.position_class_N == "lock"
    yield lock_N & ~positions.top1_changed_N
    yield lock_N & positions.top1_changed_N
    yield lock_N & positions.self_correction_N
    for name in ("fork", "diffuse", "mixed"):
        yield positions.position_class_N == name
    for name in token_classes:
        yield positions.token_class_N == name
    distance_N = positions.tokens_to_think_end_N
    bucket_N = np.where(distance_N < 0, 0, 1 + np.searchsorted(DISTANCES, distance_N, side="right"))
    for code in range(len(_DISTANCE_NAMES)):
        yield bucket_N == code
    for code in _CORRECTNESS:
        yield positions.correct_N == code


def fit_classes(positions: Positions) -> np.ndarray:
    """object [N]: the name of each position's class, of FIT_CLASSES."""
    class_N, clear_N = positions.position_class_N, positions.base_logp_NK[:, 0] >= np.log(CLEAR_TOP1)
    names = {("lock", True): "clear_lock", ("lock", False): "close_lock", ("mixed", True): "clear_mixed"}
    return np.array(
        [names.get((name, bool(clear)), name) for name, clear in zip(class_N, clear_N, strict=True)], object
    )
