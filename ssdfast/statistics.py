"""Statistics that several stages use: the cluster bootstrap, and p-values of many comparisons.

A bootstrap resample draws as many clusters (traces or problems) as there are, with replacement, and a cluster takes all
that belongs to it along. `bootstrap_sums` takes the clusters, the number of resamples and a generator, and returns one
row per resample; the same generator state gives the same rows.

Shape legend: R resamples, L strata, G clusters of a stratum or of a block, X sums of a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

_BLOCK = 512  # clusters


@np.errstate(invalid="ignore")  # an infinite sum that is not drawn
def bootstrap_sums(strata: Sequence[np.ndarray], resamples: int, rng: np.random.Generator) -> np.ndarray:
    """float64 [R, L, X]: the sums of each stratum over resamples of the clusters of all strata together.

    strata: float [G, X] each, the sums of its clusters.
    """
    blocks = [
        (i, sums_GX[start : start + _BLOCK])
        for i, sums_GX in enumerate(strata)
        for start in range(0, len(sums_GX), _BLOCK)
    ]
    resampled_RLX = np.zeros((resamples, len(strata), strata[0].shape[1]))
    counts = bootstrap_counts([len(block_GX) for _, block_GX in blocks], resamples, rng)
    for (i, block_GX), counts_RG in zip(blocks, counts, strict=True):
        resampled_RLX[:, i] += counts_RG.astype(float) @ block_GX
    return resampled_RLX


def bootstrap_counts(sizes: Sequence[int], resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """int64 [R, G] for each block of so many clusters: how often each resample draws each cluster.

    One block at a time, since the counts of a large run would fill memory: first the number of draws that fall into
    each block, then the clusters that they meet. This is the exact distribution, not an approximation.
    """
    total = sum(sizes)
    if not total:
        return
    draws_RB = rng.multinomial(total, [size / total for size in sizes], resamples)
    for size, draws_R in zip(sizes, draws_RB.T, strict=True):
        cluster_D = np.repeat(np.arange(resamples) * size, draws_R) + rng.integers(0, size, draws_R.sum())
        yield np.bincount(cluster_D, minlength=resamples * size).reshape(resamples, size)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """float64, same order: p-values corrected for all comparisons of a family (Holm 1979).

    Calling all comparisons significant whose corrected p-value is at most alpha makes any false call with a probability
    of at most alpha. Raises ValueError for none, and for a value outside of [0, 1].
    """
    p = np.asarray(p_values, np.float64)
    bad = ~((p >= 0) & (p <= 1))
    if p.ndim != 1 or not len(p) or bad.any():
        problem = f"{p[bad][0]:g}" if bad.any() else f"an array of shape {p.shape}"
        raise ValueError(f"cannot correct {problem}: p-values must be in [0, 1], one per comparison")
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return corrected
