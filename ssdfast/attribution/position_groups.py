"""Sets of positions that are looked at apart: by class, by the token's class, by the way to thinking's end, by
correctness.

Shape legend: N positions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .probe_reader import Positions

NEAR = (16, 64, 256, 1024)
"""tokens before the end of thinking at which a bucket ends"""

_DISTANCES = ("after", *(f"under {n}" for n in NEAR), f"{NEAR[-1]} and more")
_CORRECT = {1: "right", 0: "wrong", -1: "not known"}
Name = tuple[str, str]
"""kind of set and the set: ("class", "fork")"""


def names(token_classes: tuple[str, ...]) -> list[Name]:
    """All sets in the order of `masks`; the first is everything."""
    return [
        ("all", "all"),
        *(("class", name) for name in ("strict", "swap", "self_correction", "fork", "diffuse", "mixed")),
        *(("token_class", name) for name in token_classes),
        *(("to_think_end", name) for name in _DISTANCES),
        *(("correct", name) for name in _CORRECT.values()),
    ]


def masks(at: Positions, token_classes: tuple[str, ...]) -> Iterator[np.ndarray]:
    """bool [N] for each of `names`.

    A lock whose models agree is strict, one whose models do not is a swap; either can be a self-correction too.
    """
    yield np.ones(len(at.trace_N), bool)
    lock_N = at.position_class_N == "lock"
    yield lock_N & ~at.swap_N
    yield lock_N & at.swap_N
    yield lock_N & at.self_correction_N
    for name in ("fork", "diffuse", "mixed"):
        yield at.position_class_N == name
    for name in token_classes:
        yield at.token_class_N == name
    bucket_N = np.where(at.to_think_end_N < 0, 0, 1 + np.searchsorted(NEAR, at.to_think_end_N, side="right"))
    for code in range(len(_DISTANCES)):
        yield bucket_N == code
    for known in _CORRECT:
        yield at.correct_N == known
