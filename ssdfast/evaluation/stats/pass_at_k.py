"""pass@k: the chance that at least one of k samples of a problem is right."""

from __future__ import annotations

import numpy as np

from .intervals import LEVEL, RESAMPLES, Interval, by_problem
from .scores import Outcomes


def pass_at_k(correct_P: np.ndarray, samples_P: np.ndarray, k: int) -> np.ndarray:
    """float64 [P]: 1 - C(n-c, k) / C(n, k) of each problem with c of its n samples right (Chen et al. 2021).

    Unbiased where n ≥ k. As a product of k ratios, so that no binomial overflows.
    Raises ValueError for k < 1 or a problem of fewer than k samples.
    """
    if k < 1 or samples_P.min() < k:
        raise ValueError(
            f"pass@{k} cannot be had from {samples_P.min()} samples of a problem: choose k from 1 to that number"
        )
    missed_P = np.ones(len(samples_P))
    for drawn in range(k):
        missed_P *= np.maximum(samples_P - correct_P - drawn, 0) / (samples_P - drawn)
    return 1 - missed_P


def pass_at(outcomes: Outcomes, k: int, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """pass@k over all problems, a share, with the interval of a bootstrap by problem.

    Raises ValueError for scores other than 0 and 1, and where a problem has fewer than k samples, naming it.
    """
    short = outcomes.samples_P < k
    if short.any():
        first = int(short.argmax())
        raise ValueError(
            f"{short.sum()} problems have fewer than {k} samples, the first {outcomes.problem_ids[first]!r} with "
            f"{outcomes.samples_P[first]}: choose a smaller k, or draw more samples of these"
        )
    return by_problem(pass_at_k(outcomes.correct_P, outcomes.samples_P, k), (0.0, 1.0), level, resamples, seed)
