"""Parameters of several classes of positions, each shrunk toward one common value as far as the data ask for it.

Each class c has an estimate x_c with covariance V_c. The true values vary around a common one,

    x_c | t_c ~ N(t_c, V_c)     t_c ~ N(mean, diag(between))

and `between`, of each parameter, is its restricted maximum likelihood estimate (Harville 1977): 0 where the classes
differ by no more than their errors, and then all have the common value. The shrunk values are the means of t_c given
all estimates (empirical Bayes; Efron and Morris 1975).

Shape legend: C classes, D = 3 parameters of a class, B candidates for `between`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_DEVIATIONS = np.array([0.0, *np.geomspace(1e-3, 10.0, 9)])
"""between classes, at which the likelihood is computed first"""
_REFINEMENTS = 3


@dataclass(frozen=True)
class Shrinkage:
    """A linear map of the estimates: shrunk = map @ estimates, both as vectors [C * D]."""

    map: np.ndarray
    between_D: np.ndarray
    """the variance between classes of each parameter"""


def shrinkage(value_CD: np.ndarray, precision_CDD: np.ndarray) -> Shrinkage:
    """The map for estimates with these precisions, the inverses of V_c; a precision of 0 says nothing of a class."""
    is_known_D = (np.diagonal(precision_CDD, axis1=1, axis2=2) > 0).sum(0) > 1
    grids = [_DEVIATIONS if is_known else np.zeros(1) for is_known in is_known_D]
    best_D = _best(value_CD, precision_CDD, grids)
    step = np.log(_DEVIATIONS[2] / _DEVIATIONS[1])
    for _ in range(_REFINEMENTS):
        step /= 2
        factors = np.array([0.0, *np.exp(step * np.array([-1.0, 0.0, 1.0]))])
        best_D = _best(value_CD, precision_CDD, [np.unique(deviation * factors) for deviation in best_D])
    return Shrinkage(_map(precision_CDD, best_D**2), best_D**2)


def _best(value_CD: np.ndarray, precision_CDD: np.ndarray, grids: list[np.ndarray]) -> np.ndarray:
    """[D]: the standard deviations of the largest restricted likelihood, of all combinations."""
    deviation_BD = np.stack([axis.reshape(-1) for axis in np.meshgrid(*grids, indexing="ij")], 1)
    best_D: np.ndarray = deviation_BD[_losses(value_CD, precision_CDD, deviation_BD**2).argmin()]
    return best_D


def _marginal(precision_CDD: np.ndarray, between_BD: np.ndarray) -> np.ndarray:
    """[B, C, D, D]: the inverses of V_c + diag(between)."""
    inflated = np.eye(between_BD.shape[-1]) + precision_CDD * between_BD[:, None, None, :]
    marginal: np.ndarray = np.linalg.solve(inflated, np.broadcast_to(precision_CDD, inflated.shape))
    return (marginal + marginal.swapaxes(-1, -2)) / 2


def _losses(value_CD: np.ndarray, precision_CDD: np.ndarray, between_BD: np.ndarray) -> np.ndarray:
    """[B]: minus twice the restricted log-likelihood, up to a constant."""
    marginal = _marginal(precision_CDD, between_BD)
    total = marginal.sum(1)
    mean_BD = (np.linalg.pinv(total, hermitian=True) @ np.einsum("bcij,cj->bi", marginal, value_CD)[..., None])[..., 0]
    deviation = value_CD - mean_BD[:, None]
    inflated = np.eye(between_BD.shape[-1]) + precision_CDD * between_BD[:, None, None, :]
    log_det_B = np.linalg.slogdet(inflated)[1].sum(1)
    values = np.linalg.eigvalsh(total)
    is_known = values > 1e-12 * values.max(1, initial=0.0, keepdims=True)
    log_total_B = np.log(np.where(is_known, values, 1.0)).sum(1)
    losses_B: np.ndarray = log_det_B + log_total_B + np.einsum("bci,bcij,bcj->b", deviation, marginal, deviation)
    return losses_B


def _map(precision_CDD: np.ndarray, between_D: np.ndarray) -> np.ndarray:
    """[C * D, C * D]: t_c = mean + diag(between) marginal_c (x_c - mean), and the mean by generalized least squares."""
    classes, d = precision_CDD.shape[:2]
    marginal_CDD = _marginal(precision_CDD, between_D[None])[0]
    inverse_DD = np.linalg.pinv(marginal_CDD.sum(0), hermitian=True)
    mean_DCD = np.einsum("ij,cjk->ick", inverse_DD, marginal_CDD)
    own_CDD = between_D[:, None] * marginal_CDD
    shrunk = np.einsum("cij,jbk->cibk", np.eye(d) - own_CDD, mean_DCD)
    shrunk[np.arange(classes), :, np.arange(classes), :] += own_CDD
    return shrunk.reshape(classes * d, classes * d)
