"""Resamples of problems, or of traces, joint over all arms and their seeds.

Problems are drawn with replacement and take all of their traces with them, in every arm and seed at once: arms are
paired. Where an arm has several seeds, each is one training of it, and they are drawn as well, independently in each
arm (the two-way bootstrap of Owen 2007). A draw of S seeds shows only (S - 1)/S of their variance, so its departure
from the plain mean is stretched by √(S/(S - 1)). With one seed nothing of this is seen, and an interval is about these
two models, not about the recipe.

Shape legend: T traces, G clusters, X sums, R resamples, S seeds of an arm.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..statistics import drawn

RESAMPLES = 2000
_BLOCK = 512  # clusters


def clustered(sums_TX: np.ndarray, cluster_T: np.ndarray) -> np.ndarray:
    """[G, X]: sums of the clusters, which are numbered from 0."""
    found = np.zeros((int(cluster_T.max()) + 1, sums_TX.shape[1]))
    np.add.at(found, cluster_T, sums_TX)
    return found


@np.errstate(invalid="ignore")  # an infinite KL that is not drawn
def resampled(sums_GX: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[R, X]: the sums over as many clusters as there are, drawn with replacement."""
    blocks = [sums_GX[start : start + _BLOCK] for start in range(0, len(sums_GX), _BLOCK)]
    found = np.zeros((RESAMPLES, sums_GX.shape[1]))
    for block_GX, counts_RG in zip(blocks, drawn([len(one) for one in blocks], RESAMPLES, rng), strict=True):
        found += counts_RG.astype(float) @ block_GX
    return found


def seed_weights(seeds: int, rng: np.random.Generator) -> np.ndarray:
    """[R, S]: the weights of an arm's seeds in each resample; their mean is 1 in each."""
    if seeds == 1:
        return np.ones((RESAMPLES, 1))
    counts_RS = rng.multinomial(seeds, [1 / seeds] * seeds, RESAMPLES)
    found: np.ndarray = 1 + (counts_RS - 1) * np.sqrt(seeds / (seeds - 1))
    return found


def interval(value: float, value_R: np.ndarray) -> dict[str, float | None]:
    """mean, low and high (95 %, percentiles); None where undefined. JSON."""
    low, high = map(float, quantiles(value_R))
    if not (np.isfinite(value) and np.isfinite(low) and np.isfinite(high)):
        return {"mean": None, "low": None, "high": None}
    return {"mean": float(value), "low": low, "high": high}


def quantiles(value_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 2.5 % and 97.5 % quantiles over the first axis, of what is finite there; NaN where nothing is.

    A resample may miss a rare class altogether.
    """
    sorted_R = np.sort(np.where(np.isfinite(value_R), value_R, np.nan), axis=0)  # NaN goes last
    count = np.isfinite(sorted_R).sum(0)
    found = []
    for share in (0.025, 0.975):
        at = share * np.maximum(count - 1, 0)
        below = np.floor(at).astype(int)
        above = np.minimum(below + 1, np.maximum(count - 1, 0))
        low, high = (np.take_along_axis(sorted_R, place[None], 0)[0] for place in (below, above))
        found.append(low + (at - below) * (high - low))
    return found[0], found[1]


@np.errstate(divide="ignore", invalid="ignore")
def swapped(first_GX: np.ndarray, second_GX: np.ndarray, flips: int, rng: np.random.Generator) -> Sequence[np.ndarray]:
    """[X // 2] each: two-sided p-values of no difference between two arms in each ratio, and the differences of the
    ratios. X: numerator and denominator of each, in turn.

    The arms change places in problems drawn at random, exact where they are exchangeable within problems. A p-value is
    at least 1 / (flips + 1); NaN where the difference is undefined.
    """
    half_GX, middle_X = (second_GX - first_GX) / 2, (second_GX + first_GX).sum(0) / 2

    def difference(shift_X: np.ndarray) -> np.ndarray:
        more, less = middle_X + shift_X, middle_X - shift_X
        found: np.ndarray = more[..., ::2] / more[..., 1::2] - less[..., ::2] / less[..., 1::2]
        return found

    found_M = difference(half_GX.sum(0))
    extreme_M = np.zeros(len(found_M))
    for start in range(0, flips, 1000):
        signs_FG = rng.integers(0, 2, (min(1000, flips - start), len(half_GX))) * 2.0 - 1
        drawn_FM = difference(signs_FG @ half_GX)
        extreme_M += (np.abs(drawn_FM) >= np.abs(found_M) * (1 - 1e-9)).sum(0)
    p_M = np.where(np.isfinite(found_M), (1 + extreme_M) / (1 + flips), np.nan)
    return p_M, found_M
