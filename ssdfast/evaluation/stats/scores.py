"""Scores of samples, gathered by problem: every number of an evaluation is computed from them.

Samples of one problem are not independent, so problems and not samples are counted, resampled and paired.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from ...number_format import format_names


@dataclass(frozen=True)
class Scores:
    """P problems in the order of their ids, their N samples in the order of the problems."""

    problem_ids: tuple[str, ...]
    samples_P: np.ndarray
    """int64, at least 1: the number of samples of each problem."""
    score_N: np.ndarray
    """float64, 0 (incorrect) to 1 (correct)."""

    @property
    def mean_P(self) -> np.ndarray:
        """float64: each problem's mean score."""
        return np.add.reduceat(self.score_N, self._starts) / self.samples_P

    @property
    def correct_P(self) -> np.ndarray:
        """int64: each problem's correct samples. Raises ValueError where a score is neither 0 nor 1."""
        between = (self.score_N != 0) & (self.score_N != 1)
        if between.any():
            row = int(between.argmax())
            problem = self.problem_ids[int(np.searchsorted(self._starts, row, side="right")) - 1]
            raise ValueError(
                f"a sample of problem {problem!r} scores {self.score_N[row]:g}: correct samples can be counted only "
                "where every score is 0 or 1"
            )
        return np.add.reduceat(self.score_N, self._starts).astype(np.int64)

    @property
    def variance_P(self) -> np.ndarray:
        """float64: the unbiased variance of each problem's scores, NaN where there is one sample."""
        centred_N = self.score_N - np.repeat(self.mean_P, self.samples_P)
        squares_P = np.add.reduceat(centred_N**2, self._starts)
        return np.divide(squares_P, self.samples_P - 1, out=np.full(squares_P.shape, np.nan), where=self.samples_P > 1)

    def select(self, problem_ids: Collection[str]) -> Scores:
        """The scores of these problems alone. Raises ValueError where none of them is here."""
        names = set(problem_ids)
        mask_P = np.array([name in names for name in self.problem_ids])
        if not mask_P.any():
            raise ValueError("none of these problems has a sample: name problems that were evaluated")
        remaining = tuple(name for name in self.problem_ids if name in names)
        return Scores(remaining, self.samples_P[mask_P], self.score_N[np.repeat(mask_P, self.samples_P)])

    @property
    def _starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.samples_P)[:-1]])


def gather_scores(problem_N: np.ndarray, score_N: np.ndarray) -> Scores:
    """The scores of N samples in any order, from the problem and the score of each; a score is in [0, 1] or a bool.

    Raises ValueError for no samples, unequal lengths, and a score outside [0, 1], naming its problem.
    """
    problem_N, score_N = np.asarray(problem_N), np.asarray(score_N, np.float64)
    if problem_N.ndim != 1 or problem_N.shape != score_N.shape:
        raise ValueError(
            f"{problem_N.shape} problem ids and {score_N.shape} scores do not match: give one of each per sample"
        )
    if not len(score_N):
        raise ValueError("there are no samples to evaluate: give at least one")
    bad = ~((score_N >= 0) & (score_N <= 1))  # NaN fails both
    if bad.any():
        raise ValueError(
            f"{bad.sum()} of {len(bad)} scores are outside [0, 1], the first {score_N[bad.argmax()]:g} of problem "
            f"{str(problem_N[bad.argmax()])!r}: correct or leave out these samples"
        )
    ids, problem_index_N, samples_P = np.unique(problem_N.astype(str), return_inverse=True, return_counts=True)
    order = np.argsort(problem_index_N, kind="stable")
    return Scores(tuple(ids.tolist()), samples_P.astype(np.int64), score_N[order])


def check_same_problems(baseline: Scores, run: Scores) -> None:
    """Raises ValueError where two runs answered different problems, naming the first few that differ."""
    lacking = [
        (which, sorted(set(these.problem_ids) - set(those.problem_ids)))
        for which, these, those in (("first", baseline, run), ("second", run, baseline))
    ]
    if texts := [f"{len(ids)} only in the {which} ({format_names(ids)})" for which, ids in lacking if ids]:
        raise ValueError(
            f"the runs answer different problems, {' and '.join(texts)}: compare runs over the same problems"
        )
