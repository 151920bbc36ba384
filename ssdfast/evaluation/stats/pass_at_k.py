"""pass@k: the chance that at least one of k samples of a problem is correct."""

from __future__ import annotations

import numpy as np

from .intervals import LEVEL, Interval, trials_worth, wilson, wilson_by_problem
from .scores import Scores


def estimate_pass_at_k(correct_P: np.ndarray, samples_P: np.ndarray, k: int) -> np.ndarray:
    """float64 [P]: 1 - C(n-c, k) / C(n, k) of each problem with c of its n samples correct (Chen et al. 2021).

    Unbiased where n ≥ k. As a product of k ratios, so that no binomial overflows.
    Raises ValueError for k < 1 or a problem of fewer than k samples.
    """
    if k < 1 or samples_P.min() < k:
        raise ValueError(f"pass@{k} needs at least k samples per problem: choose k from 1 to {samples_P.min()}")
    missed_P = np.ones(len(samples_P))
    for step in range(k):
        missed_P *= np.maximum(samples_P - correct_P - step, 0) / (samples_P - step)
    return 1 - missed_P


def mean_pass_at_k(scores: Scores, k: int, level: float = LEVEL) -> Interval:
    """pass@k over all problems, a fraction.

    The estimate of a problem with n samples averages over all ways to take k of them, so it varies no more than the
    mean of the ⌊n/k⌋ trials that n samples can be split into (Hoeffding 1963). The interval is that of an accuracy with
    so many samples: Wilson's where there is one trial per problem and k = n.
    Raises ValueError for scores other than 0 and 1, and where a problem has fewer than k samples, naming it.
    """
    short = scores.samples_P < k
    if short.any():
        first = int(short.argmax())
        raise ValueError(
            f"{short.sum()} problems have fewer than {k} samples, the first {scores.problem_ids[first]!r} with "
            f"{scores.samples_P[first]}: choose a smaller k, or draw more samples of these"
        )
    value_P = estimate_pass_at_k(scores.correct_P, scores.samples_P, k)
    trials_P = scores.samples_P // k
    if trials_P.max() == 1 and np.isin(value_P, (0, 1)).all():
        return wilson(int(value_P.sum()), len(value_P), level)
    return wilson_by_problem(value_P, trials_worth(value_P, trials_P), level)
