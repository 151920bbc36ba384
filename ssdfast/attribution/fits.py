"""The components of one probe's shift, fitted together, and what each explains of it.

Every class of positions has parameters of its own (strength, temperature, EOS bias), shrunk toward common ones, since
self-distillation may act at some classes only. The classes are decided by the baseline alone: a class that depends on
the trained model, as locks whose top token changed, would select positions by the noise of the training.

The components are Shapley values: what a component adds to the gain, averaged over the orders in which they can be
added, each with the parameters of the joint fit. What no component explains is the residual; all four add up to
KL(p_trained ‖ p_base). A component that opposes another, as a raised temperature opposes self-distillation, explains
little or less than nothing; the loss of gain without it shows that it is present.

Shape legend: G problems, N positions, U = 8 subsets of the components, C fit classes, D = 3 parameters of a class.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .estimates import Estimates, sum_by_problem
from .load_probes import ArmProbe
from .mixture_model import COMPONENTS, MixtureModel
from .position_groups import FIT_CLASSES
from .shrinkage import shrinkage
from .target_distribution import target_ratio

RESIDUAL = "residual"
_CLASS_PROBLEMS = 5
"""problems with positions of a class from which on it has parameters of its own"""
_SUBSETS = list(itertools.product((0, 1), repeat=len(COMPONENTS)))
_WITHOUT = [_SUBSETS.index(tuple(int(other != component) for other in COMPONENTS)) for component in COMPONENTS]
_LEAST_ERROR = 1e-4  # of a parameter: below it the model itself is wrong
_LEAST_CURVATURE = 1e-10  # of the mean gain in a parameter, nats: below it lies rounding
_C, _D, _U = len(FIT_CLASSES), len(COMPONENTS), len(_SUBSETS)
KL = 0
PARAMETERS = slice(1, 1 + _D)
PARTS = slice(1 + _D, 2 + 2 * _D)
DROP_ONE = slice(2 + 2 * _D, 2 + 3 * _D)
BY_CLASS = slice(2 + 3 * _D, 2 + 3 * _D + _C * _D)
"""Places in `Fit.estimates`: the shift in nats; strength, temperature and EOS bias, as means over the classes; nats of
each component and of the residual; the loss of gain without each component; and the parameters of each class."""


@dataclass(frozen=True)
class Fit:
    """The joint fit of a probe."""

    theta_CD: np.ndarray
    """(s, b, g) of each class"""
    estimates: Estimates
    weight_CD: np.ndarray
    """what a unit of (s, temperature, g) squared of a class is worth, twice in nats per position, near the baseline"""
    positions_C: np.ndarray


def fit(arm_probe: ArmProbe, problem_T: np.ndarray) -> Fit:
    """The joint fit of a probe, whose traces answer the problems `problem_T`, numbered from 0."""
    problem_N = problem_T[arm_probe.trace_N]
    problems = int(problem_T.max()) + 1
    models = _models(arm_probe)
    raw = [_fit_class(model, problem_N[rows_N], problems) for rows_N, model in models]
    value_CD = np.stack([value_D for value_D, _, _ in raw])
    shrunk = shrinkage(value_CD, np.stack([precision_DD for _, precision_DD, _ in raw])).map
    theta_CD = (shrunk @ value_CD.reshape(-1)).reshape(_C, _D)
    influence_GCD = (np.concatenate([influence_GD for _, _, influence_GD in raw], 1) @ shrunk.T).reshape(-1, _C, _D)
    total = len(problem_N)
    # Sums of problems: positions, KL, the gain of each subset.
    sums_GX = np.zeros((problems, 2 + _U))
    slope_UCD = np.zeros((_U, _C, _D))
    weight_CD = np.zeros((_C, _D))
    for c, (rows_N, model) in enumerate(models):
        if not len(rows_N):
            continue
        theta_CD[c] = np.clip(theta_CD[c], model.low, model.high)
        weight_CD[c] = model.information() * len(rows_N) / total
        columns = [np.ones(len(rows_N)), arm_probe.columns.kl_N[rows_N].astype(np.float64)]
        for u, subset in enumerate(_SUBSETS):
            columns.append(model.gain(theta_CD[c] * subset))
            slope_UCD[u, c] = model.slopes(theta_CD[c] * subset).sum(0) * subset / total
        sums_GX += sum_by_problem(np.stack(columns, 1), problem_N[rows_N], problems)
    estimates = _estimates(sums_GX, theta_CD, influence_GCD, slope_UCD, weight_CD)
    # A change of the temperature T = 1 / (1 + b) by dT is one of b by -dT / T².
    in_temperature_CD = weight_CD / np.stack([np.ones(_C), (1 + theta_CD[:, 1]) ** -4, np.ones(_C)], 1)
    return Fit(theta_CD, estimates, in_temperature_CD, np.array([len(rows_N) for rows_N, _ in models]))


def residual_correlation(seeds: Sequence[ArmProbe], fits: Sequence[Fit]) -> float | None:
    """The correlation of the residuals of an arm's seeds, pooled over positions: the mean over pairs of seeds.

    Near 0 where the residual is chance, near 1 where another training of the arm gives the same one. On the top list
    under the baseline's distribution; None for one seed.
    """
    if len(seeds) < 2 or len({len(seed.trace_N) for seed in seeds}) > 1:
        return None
    residuals = []
    for seed, seed_fit in zip(seeds, fits, strict=True):
        residual_NK = np.zeros(seed.columns.base_logp_NK.shape)
        for (rows_N, model), theta_D in zip(_models(seed), seed_fit.theta_CD, strict=True):
            weight_NK = model.p_NK / model.p_NK.sum(1, keepdims=True)
            own_NK = model.residual(theta_D)
            residual_NK[rows_N] = np.sqrt(weight_NK) * (own_NK - (weight_NK * own_NK).sum(1, keepdims=True))
        residuals.append(residual_NK)
    correlations = [
        (first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum())
        for first, second in itertools.combinations(residuals, 2)
    ]
    mean = float(np.mean(correlations))
    return mean if np.isfinite(mean) else None


def _models(arm_probe: ArmProbe) -> list[tuple[np.ndarray, MixtureModel]]:
    """Of each class: the rows of its positions, and their model."""
    train = arm_probe.probe.settings.train_sampling
    models = []
    for name in FIT_CLASSES:
        rows_N = np.flatnonzero(arm_probe.fit_class_N == name)
        shift = arm_probe.positions(rows_N)
        ratio_NK = target_ratio(shift.base_logp_NK, train.temperature, train.top_k, train.top_p)
        models.append((rows_N, MixtureModel(shift, ratio_NK)))
    return models


def _fit_class(model: MixtureModel, problem_N: np.ndarray, problems: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(parameters [D], their precision [D, D], influence of each problem [G, D]) of the positions of one class.

    The influence of a problem is minus the inverse curvature times its slope, and 0 on a parameter at its bound.
    The precision is 0 for a parameter that hardly changes the gain, and for all of them in a class of few problems.
    """
    influence_GD, precision_DD = np.zeros((problems, _D)), np.zeros((_D, _D))
    number = len(np.unique(problem_N))
    if number < max(min(_CLASS_PROBLEMS, problems), 2):
        return np.zeros(_D), precision_DD, influence_GD
    theta_D = model.fit()
    slope_ND = model.slopes(theta_D)
    slope_GD = sum_by_problem(slope_ND, problem_N, problems) / len(slope_ND)
    curvature_DD = model.curvature(theta_D)
    known = np.flatnonzero(np.diag(curvature_DD) < -_LEAST_CURVATURE)
    if len(known):
        scale = np.sqrt(-np.diag(curvature_DD)[known])
        inverse = np.linalg.pinv(curvature_DD[np.ix_(known, known)] / np.outer(scale, scale), 1e-8, hermitian=True)
        influence_GD[:, known] = -(slope_GD - slope_GD.mean(0))[:, known] @ (inverse / np.outer(scale, scale))
        covariance = influence_GD[:, known].T @ influence_GD[:, known] * number / (number - 1)
        precision_DD[np.ix_(known, known)] = np.linalg.inv(covariance + np.eye(len(known)) * _LEAST_ERROR**2)
    influence_GD[:, (theta_D <= model.low) | (theta_D >= model.high)] = 0
    return theta_D, precision_DD, influence_GD


def _estimates(
    sums_GX: np.ndarray, theta_CD: np.ndarray, influence_GCD: np.ndarray, slope_UCD: np.ndarray, weight_CD: np.ndarray
) -> Estimates:
    """All statistics of the fit, in the places that the slices above name."""
    total, kl = sums_GX[:, 0].sum(), sums_GX[:, 1].sum()
    gain_U = sums_GX[:, 2:].sum(0) / total
    means = np.append(kl / total, gain_U)
    influence_GX = (sums_GX[:, 1:] - means * sums_GX[:, :1]) / total
    influence_GX[:, 1:] += np.einsum("gcd,ucd->gu", influence_GCD, slope_UCD)
    kl_G, gain_GU = influence_GX[:, 0], influence_GX[:, 1:]
    temperature_C = 1 / (1 + theta_CD[:, 1])
    value_CD = np.stack([theta_CD[:, 0], temperature_C, theta_CD[:, 2]], 1)
    influence_GCD = influence_GCD * np.stack([np.ones(_C), -(temperature_C**2), np.ones(_C)], 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        part_CD = np.where(weight_CD.sum(0) > 0, weight_CD / weight_CD.sum(0), 1 / _C)
    return Estimates(
        np.concatenate(
            [
                means[:1],
                (part_CD * value_CD).sum(0),
                gain_U @ _SHAPLEY,
                [means[0] - gain_U[-1]],
                gain_U[-1] - gain_U[_WITHOUT],
                value_CD.reshape(-1),
            ]
        ),
        np.concatenate(
            [
                kl_G[:, None],
                np.einsum("cd,gcd->gd", part_CD, influence_GCD),
                gain_GU @ _SHAPLEY,
                (kl_G - gain_GU[:, -1])[:, None],
                gain_GU[:, -1:] - gain_GU[:, _WITHOUT],
                influence_GCD.reshape(len(kl_G), -1),
            ],
            1,
        ),
    )


def _shapley() -> np.ndarray:
    """[U, D]: the weights that turn gains of the subsets into Shapley values of the components."""
    weights = np.zeros((len(_SUBSETS), len(COMPONENTS)))
    n = len(COMPONENTS)
    for row, subset in enumerate(_SUBSETS):
        size = sum(subset)
        for column in range(n):
            if subset[column]:
                weights[row, column] = math.factorial(size - 1) * math.factorial(n - size) / math.factorial(n)
            else:
                weights[row, column] = -math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
    return weights


_SHAPLEY = _shapley()
