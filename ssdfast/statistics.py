"""Statistics that more than one stage rests on: resamples of clusters, and p-values of many comparisons.

Shape legend: R resamples, G clusters of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def drawn(sizes: Sequence[int], resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """int64 [R, G] for each block of clusters, of so many each: how often every cluster was drawn.

    A resample draws as many clusters as all blocks hold together, with replacement. It goes a block at a time, or the
    counts of a large run would fill memory: first how many draws fall into each block, then which of its clusters they
    meet. That is the same distribution, not an approximation.
    """
    total = sum(sizes)
    if not total:
        return
    draws_RB = rng.multinomial(total, [size / total for size in sizes], resamples)
    for size, draws_R in zip(sizes, draws_RB.T, strict=True):
        drawn_D = np.repeat(np.arange(resamples) * size, draws_R) + rng.integers(0, size, draws_R.sum())
        yield np.bincount(drawn_D, minlength=resamples * size).reshape(resamples, size)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """float64, same order: p-values adjusted for all comparisons of a family (Holm 1979).

    Those under alpha are findings, and the chance that any one of them is false is at most alpha.
    Raises ValueError for none, and for a value that is no number of 0 to 1.
    """
    p = np.asarray(p_values, np.float64)
    bad = ~((p >= 0) & (p <= 1))
    if p.ndim != 1 or not len(p) or bad.any():
        found = f"{p[bad][0]:g}" if bad.any() else f"an array of shape {p.shape}"
        raise ValueError(f"{found} is no p-value to correct: give one number of 0 to 1 for each comparison")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted
