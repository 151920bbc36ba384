"""Intervals, paired tests, power and sequential tests of accuracies. Usable alone: NumPy arrays in, numbers out.

Scores of N samples go in with the problem of each; problems are resampled and paired, not samples.

    >>> import numpy as np
    >>> problems = np.array(["p1", "p1", "p2", "p2", "p3", "p3"])
    >>> baseline = gather_scores(problems, np.array([1, 0, 1, 1, 0, 0]))
    >>> trained = gather_scores(problems, np.array([1, 1, 1, 1, 0, 1]))
    >>> accuracy(baseline).value
    0.5
    >>> compare(baseline, trained).num_discordant
    2
    >>> round(float(mean_pass_at_k(baseline, k=2).value), 3)
    0.667
"""

from .intervals import Interval, accuracy, wilson
from .paired_tests import PairedComparison, compare, mcnemar, sign_flips
from .pass_at_k import estimate_pass_at_k, mean_pass_at_k
from .power import (
    PairedDesign,
    PairedVariance,
    VarianceComponents,
    paired_variance,
    planned_mde_pp,
    variance_components,
)
from .scores import Scores, gather_scores
from .sequential import Look, SequentialTest
from .subsets import stratified_subset

__all__ = [
    "Interval",
    "Look",
    "PairedComparison",
    "PairedDesign",
    "PairedVariance",
    "Scores",
    "SequentialTest",
    "VarianceComponents",
    "accuracy",
    "compare",
    "estimate_pass_at_k",
    "gather_scores",
    "mcnemar",
    "mean_pass_at_k",
    "paired_variance",
    "planned_mde_pp",
    "sign_flips",
    "stratified_subset",
    "variance_components",
    "wilson",
]
