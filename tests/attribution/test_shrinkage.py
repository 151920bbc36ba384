"""Parameters of classes are drawn together where they agree, and left alone where they do not."""

import numpy as np
import pytest

from ssdfast.attribution.shrinkage import shrinkage

ERROR = 0.05


def shrunk(value_CD, precision_CDD):
    return (shrinkage(value_CD, precision_CDD).map @ value_CD.reshape(-1)).reshape(value_CD.shape)


def precisions(classes, *errors):
    return np.stack([np.diag(1 / np.array(errors) ** 2)] * classes)


def test_classes_that_agree_get_the_weighted_mean():
    rng = np.random.default_rng(0)
    precision_CDD = precisions(6, ERROR, ERROR, ERROR)
    precision_CDD[0] *= 4
    value_CD = np.array([0.3, -0.1, 0.0]) + 0.3 * ERROR * rng.standard_normal((6, 3))
    found = shrinkage(value_CD, precision_CDD)
    assert (found.between_D == 0).all()
    weights = np.array([4, 1, 1, 1, 1, 1]) / 9
    assert shrunk(value_CD, precision_CDD) == pytest.approx(np.tile(weights @ value_CD, (6, 1)))


def test_a_class_that_differs_keeps_its_own_value():
    value_CD = np.zeros((6, 3))
    value_CD[1, 0] = 0.5
    found = shrunk(value_CD, precisions(6, 0.01, 0.01, 0.01))
    assert found[1, 0] == pytest.approx(0.5, abs=0.01)
    assert np.abs(np.delete(found[:, 0], 1)).max() < 0.01
    assert np.abs(found[:, 1:]).max() < 1e-6


def test_shrinking_is_closer_to_the_truth_than_the_estimates():
    rng = np.random.default_rng(0)
    precision_CDD = precisions(6, ERROR, ERROR, ERROR)
    raw, better = [], []
    for _ in range(200):
        true_CD = np.array([0.3, -0.1, 0.2]) + np.array([0.03, 0.0, 0.2]) * rng.standard_normal((6, 3))
        value_CD = true_CD + ERROR * rng.standard_normal((6, 3))
        raw.append(((value_CD - true_CD) ** 2).mean(0))
        better.append(((shrunk(value_CD, precision_CDD) - true_CD) ** 2).mean(0))
    ratio_D = np.mean(better, 0) / np.mean(raw, 0)
    assert (ratio_D < [0.7, 0.4, 1.02]).all()


def test_a_class_that_says_nothing_gets_the_common_value():
    """A precision of 0, of a class or of one of its parameters."""
    precision_CDD = precisions(6, ERROR, ERROR, ERROR)
    value_CD = np.full((6, 3), 0.2)
    precision_CDD[3], value_CD[3] = 0, 0
    precision_CDD[4, 2, 2], value_CD[4, 2] = 0, 0
    assert shrunk(value_CD, precision_CDD) == pytest.approx(np.full((6, 3), 0.2))


def test_one_class_or_none_is_left_as_it_is():
    precision_CDD = np.zeros((6, 3, 3))
    value_CD = np.zeros((6, 3))
    assert (shrunk(value_CD, precision_CDD) == 0).all()
    precision_CDD[2], value_CD[2] = np.eye(3), 0.4
    assert shrunk(value_CD, precision_CDD) == pytest.approx(np.full((6, 3), 0.4))


def test_errors_that_are_correlated_move_together():
    """A class whose strength and temperature cannot be told apart is drawn along that direction alone."""
    direction = np.array([1.0, -1.0]) / np.sqrt(2)
    precision_CDD = precisions(6, 0.01, 0.01, 0.01)
    loose = np.eye(2) * 0.01**2 + 0.5**2 * np.outer(direction, direction)
    precision_CDD[0, :2, :2] = np.linalg.inv(loose)
    value_CD = np.zeros((6, 3))
    value_CD[:, 0] = np.linspace(-0.005, 0.005, 6)
    value_CD[0, :2] += 0.4 * direction
    assert np.abs(shrunk(value_CD, precision_CDD)).max() < 0.02
