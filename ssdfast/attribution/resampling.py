"""Resamples of problems, or of traces, joint over all arms and their seeds.

Problems are drawn with replacement and take all of their traces along, in every arm and seed at once: arms are paired.
Where an arm has several seeds, each is one training of it, and they are drawn as well, independently in each arm (the
two-way bootstrap of Owen 2007). A draw of S seeds shows only (S - 1)/S of their variance, so its deviation from the
plain mean is scaled by √(S/(S - 1)). One seed shows no such variance, and an interval is then about these two models,
not about the recipe.

Shape legend: T traces, G clusters, X sums, R resamples, S seeds of an arm, F flips, M ratios.
"""

from __future__ import annotations

import numpy as np

from ..statistics import bootstrap_sums

RESAMPLES = 2000


def sum_clusters(sums_TX: np.ndarray, cluster_T: np.ndarray) -> np.ndarray:
    """[G, X]: sums of the clusters, which are numbered from 0."""
    sums_GX = np.zeros((int(cluster_T.max()) + 1, sums_TX.shape[1]))
    np.add.at(sums_GX, cluster_T, sums_TX)
    return sums_GX


def resample(sums_GX: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[R, X]: the sums over resamples of the clusters."""
    return bootstrap_sums([sums_GX], RESAMPLES, rng)[:, 0]


def seed_weights(seeds: int, rng: np.random.Generator) -> np.ndarray:
    """[R, S]: the weights of an arm's seeds in each resample; their mean is 1 in each."""
    if seeds == 1:
        return np.ones((RESAMPLES, 1))
    counts_RS = rng.multinomial(seeds, [1 / seeds] * seeds, RESAMPLES)
    weights_RS: np.ndarray = 1 + (counts_RS - 1) * np.sqrt(seeds / (seeds - 1))
    return weights_RS


def interval(value: float, value_R: np.ndarray) -> dict[str, float | None]:
    """value, ci_low and ci_high (95 %, percentiles); None where undefined. JSON."""
    low, high = map(float, quantiles(value_R))
    if not (np.isfinite(value) and np.isfinite(low) and np.isfinite(high)):
        return {"value": None, "ci_low": None, "ci_high": None}
    return {"value": float(value), "ci_low": low, "ci_high": high}


def quantiles(value_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 2.5 % and 97.5 % quantiles of the finite values along the first axis; NaN where there is none.

    A resample may miss a rare class altogether.
    """
    sorted_R = np.sort(np.where(np.isfinite(value_R), value_R, np.nan), axis=0)  # NaN goes last
    count = np.isfinite(sorted_R).sum(0)
    ends = []
    for fraction in (0.025, 0.975):
        place = fraction * np.maximum(count - 1, 0)
        below = np.floor(place).astype(int)
        above = np.minimum(below + 1, np.maximum(count - 1, 0))
        low, high = (np.take_along_axis(sorted_R, index[None], 0)[0] for index in (below, above))
        ends.append(low + (place - below) * (high - low))
    return ends[0], ends[1]


@np.errstate(divide="ignore", invalid="ignore")
def swap_test(
    first_GX: np.ndarray, second_GX: np.ndarray, flips: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """[X // 2] each: two-sided p-values of no difference between two arms in each ratio, and the differences of the
    ratios. X: numerator and denominator of each, in turn.

    A permutation test: the arms swap places in random problems, exact where they are exchangeable within problems. A
    p-value is at least 1 / (flips + 1); NaN where the difference is undefined.
    """
    half_GX, middle_X = (second_GX - first_GX) / 2, (second_GX + first_GX).sum(0) / 2

    def ratio_difference(offset_X: np.ndarray) -> np.ndarray:
        second, first = middle_X + offset_X, middle_X - offset_X
        difference: np.ndarray = second[..., ::2] / second[..., 1::2] - first[..., ::2] / first[..., 1::2]
        return difference

    observed_M = ratio_difference(half_GX.sum(0))
    extreme_M = np.zeros(len(observed_M))
    for start in range(0, flips, 1000):
        signs_FG = rng.integers(0, 2, (min(1000, flips - start), len(half_GX))) * 2.0 - 1
        swapped_FM = ratio_difference(signs_FG @ half_GX)
        extreme_M += (np.abs(swapped_FM) >= np.abs(observed_M) * (1 - 1e-9)).sum(0)
    p_M = np.where(np.isfinite(observed_M), (1 + extreme_M) / (1 + flips), np.nan)
    return p_M, observed_M
