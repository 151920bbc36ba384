"""How alike the samples of one problem are: the intraclass correlation of a beta-binomial model, from few data too.

An estimate from moments fails where it matters most: near 0 or 1 a few problems hold every rare sample, and one rare
sample shows no correlation at all, though it excludes none. A posterior says what such data leave open.

Shape legend: P problems, M points of the mean's grid, R points of the correlation's grid.
"""

from __future__ import annotations

import numpy as np

_LOGITS_R = np.linspace(-9.0, 9.0, 61)
_R = 1 / (1 + np.exp(-_LOGITS_R))
_STEPS_M = np.linspace(-3.0, 3.0, 41)  # of the inverse sinh: dense in the middle
_REACH = 8.0  # standard errors to each side


def intraclass_correlation(successes_P: np.ndarray, trials_P: np.ndarray) -> float:
    """The posterior median of the correlation between two samples of one problem, in (0, 1).

    The likelihood is beta-binomial, with Jeffreys' Beta(½, ½) prior on the mean and on the correlation (Lee and
    Sabavala 1987; Turner, Omar and Thompson 2001). A count may be fractional: its likelihood is interpolated.
    With a single trial per problem nothing is known of it, and this is the prior's median, ½.
    """
    problems, fraction = len(trials_P), (float(np.sum(successes_P / trials_P)) + 0.5) / (len(trials_P) + 1)
    error = 1 / np.sqrt(problems * fraction * (1 - fraction))
    spread_M = np.sinh(_STEPS_M)
    logits_M = np.log(fraction / (1 - fraction)) + _REACH * error * spread_M / spread_M[-1]
    mean_M1 = (1 / (1 + np.exp(-logits_M)))[:, None]
    log_MR = 0.5 * np.log(mean_M1 * (1 - mean_M1)) + 0.5 * np.log(_R * (1 - _R)) + np.log(np.cosh(_STEPS_M))[:, None]
    failures_P = trials_P - successes_P
    for j in range(int(trials_P.max())):  # the rising factorials of the beta-binomial, factor by factor
        gained, lost = (float(np.clip(count_P - j, 0, 1).sum()) for count_P in (successes_P, failures_P))
        log_MR -= float((trials_P > j).sum()) * np.log(1 - _R + j * _R)
        if gained:
            log_MR += gained * np.log(mean_M1 * (1 - _R) + j * _R)
        if lost:
            log_MR += lost * np.log((1 - mean_M1) * (1 - _R) + j * _R)
    mass_R = np.exp(log_MR - log_MR.max()).sum(axis=0)
    below_R = (np.cumsum(mass_R) - mass_R / 2) / mass_R.sum()
    return float(1 / (1 + np.exp(-np.interp(0.5, below_R, _LOGITS_R))))
