"""Gains from a probe's columns against the whole vocabulary in float64; the planted numbers are found again.

Shape legend: N positions, V vocabulary.
"""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ssdfast.attribution import fits
from ssdfast.attribution.fits import BY_CLASS, DROP_ONE, KL, PARAMETERS, PARTS, _models, fit
from ssdfast.attribution.load_probes import read_probes
from ssdfast.attribution.mixture_model import MixtureModel
from ssdfast.attribution.shrinkage import Shrinkage
from ssdfast.attribution.single_component_fits import fit_mixture, single_component_fits
from ssdfast.attribution.target_distribution import target_ratio
from ssdfast.sampling_distribution import truncated_distribution

from .synthetic import CLOSE, END, TRAIN, Planted, baseline, write

SETTING = (TRAIN.temperature, TRAIN.top_k, TRAIN.top_p)
PLANTED = Planted(strength=0.3, temperature=0.93, eos_bias=0.5, residual=0.05, seed=1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(baseline, trained logits [N, V], its probe, explanations of it)."""
    base = baseline(traces=40)
    logits_NV = PLANTED.logits(base)
    (one,) = read_probes([write(tmp_path_factory.mktemp("pair"), base, logits_NV)])
    return base, logits_NV, one, MixtureModel(one.positions(), target_ratio(one.positions().base_logp_NK, *SETTING))


def gain_by_hand(base, logits_b_NV, theta) -> np.ndarray:
    """E_b[log m - log p_a] over the whole vocabulary."""
    s, b, g = theta
    logp_NV, log_b_NV = base.logits_NV.double().log_softmax(1), logits_b_NV.double().log_softmax(1)
    ends_V = torch.zeros(logp_NV.shape[1], dtype=torch.float64)
    ends_V[[END, CLOSE]] = 1
    log_m_NV = (1 + b) * logp_NV + torch.log1p(s * base.log_ratio_NV.double().expm1()) + g * ends_V
    return (log_b_NV.exp() * (log_m_NV.log_softmax(1) - logp_NV)).sum(1).numpy()


@pytest.mark.parametrize(
    "theta", [(0, 0, 0), (0.3, 0, 0), (-0.1, 0, 0), (0, 0.15, 0), (0, -0.2, 0), (0, 0, 2), (0.6, 0.08, -1)]
)
def test_gains_are_those_of_the_whole_vocabulary(pair, theta):
    base, logits_NV, _, model = pair
    gain_N = model.gain(np.array(theta, float))
    want_N = gain_by_hand(base, logits_NV, theta)
    assert np.abs(gain_N - want_N).max() < 2e-3
    # Between the probe's temperatures the mass outside the list is interpolated; otherwise only float32 is in the way.
    assert gain_N.mean() == pytest.approx(want_N.mean(), abs=5e-5 if theta[1] else 2e-6)


@settings(max_examples=15, deadline=None)
@given(st.floats(-0.05, 0.95), st.floats(-0.3, 0.8), st.floats(-3, 3))
@example(0.0, 0.5, 0.0)  # as far from a node above as from one below
@example(0.0, 1 / 0.7 - 1, 0.0)  # on a node
def test_slopes_are_the_derivatives(pair, s, b, g):
    model, theta = pair[3], np.array([s, b, g])
    slope_N3 = model.slopes(theta)
    for i in range(3):
        step = np.zeros(3)
        step[i] = 1e-6
        difference_N = (model.gain(theta + step) - model.gain(theta - step)) / 2e-6
        assert slope_N3[:, i] == pytest.approx(difference_N, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(("s", "b", "g"), [(0.0, 0.0, 0.0), (0.4, 0.1, 0.5), (0.9, -0.3, -1.0), (-0.1, 0.4, 0.0)])
def test_the_curvature_is_the_slopes_derivative(pair, s, b, g):
    model, theta = pair[3], np.array([s, b, g])
    for i in range(3):
        step = np.zeros(3)
        step[i] = 1e-5
        difference = (model.slopes(theta + step).mean(0) - model.slopes(theta - step).mean(0)) / 2e-5
        assert model.curvature(theta)[i] == pytest.approx(difference, rel=1e-4, abs=1e-6)


def test_the_planted_numbers_are_found(pair):
    s, b, g = pair[3].fit()
    assert s == pytest.approx(PLANTED.strength, abs=0.02)
    assert 1 / (1 + b) == pytest.approx(PLANTED.temperature, abs=0.01)
    assert g == pytest.approx(PLANTED.eos_bias, abs=0.1)


def test_no_other_numbers_explain_more(pair):
    model = pair[3]
    best = model.fit()
    most = model.gain(best).mean()
    for step in np.vstack([np.eye(3), -np.eye(3)]) * 0.02:
        assert model.gain(best + step).mean() < most


def test_components_and_residual_add_up_to_the_shift(pair):
    one = pair[2]
    value_X = fit(one, problems(one)).estimates.value_X
    assert value_X[PARTS].sum() == pytest.approx(value_X[KL]) == pytest.approx(one.positions().kl_N.mean())
    assert (value_X[PARTS] > 0).all()
    assert (value_X[DROP_ONE] > 0).all()


def test_influences_are_what_leaving_a_problem_out_does(pair):
    """To first order: the numbers of a fit without it move by minus its influence."""
    one = pair[2]
    problem_T = problems(one)
    its = fit(one, problem_T).estimates
    assert its.influence_GX.sum(0) == pytest.approx(0, abs=1e-6)
    for g in (0, 7):
        rest = one.select([trace for trace, problem in zip(one.traces, problem_T, strict=True) if problem != g])
        shift_X = fit(rest, problems(rest)).estimates.value_X - its.value_X
        for columns in (slice(KL, KL + 1), PARAMETERS, PARTS, DROP_ONE):
            assert shift_X[columns] == pytest.approx(-its.influence_GX[g, columns], rel=0.3, abs=2e-3)


def test_influences_are_those_of_every_statistic(pair, monkeypatch):
    """Over problems left out one by one, where every class has its own estimate.

    The shrinkage is not linear in the problems, and its own dependence on them is left out.
    """
    monkeypatch.setattr(fits, "shrinkage", lambda value_CD, _: Shrinkage(np.eye(value_CD.size), np.zeros(3)))
    one = pair[2]
    problem_T = problems(one)
    its = fit(one, problem_T).estimates
    shifts = []
    left_out = range(0, int(problem_T.max()) + 1, 2)
    for g in left_out:
        rest = one.select([trace for trace, problem in zip(one.traces, problem_T, strict=True) if problem != g])
        shifts.append(fit(rest, problems(rest)).estimates.value_X - its.value_X)
    influence_GX = -its.influence_GX[list(left_out)]
    for columns in (slice(KL, KL + 1), PARAMETERS, PARTS, DROP_ONE, BY_CLASS):
        for x in range(columns.start, columns.stop):
            size = np.linalg.norm(influence_GX[:, x])
            if size > 1e-12:
                assert np.linalg.norm(np.array(shifts)[:, x] - influence_GX[:, x]) < 0.35 * size, x


def test_classes_that_do_not_differ_share_their_parameters(tmp_path):
    """The same strength everywhere, and noise: estimates of single classes are apart, and the fit has one value."""
    base = baseline(traces=60)
    (one,) = read_probes([write(tmp_path, base, Planted(strength=0.3).logits(base, 0.3))])
    raw = [model.fit()[0] for _, model in _models(one)]
    shrunk = fit(one, problems(one)).theta_CD[:, 0]
    assert np.ptp(shrunk) < 0.35 * np.ptp(raw)


def problems(one):
    """The problem of each trace, numbered from 0."""
    numbers = {name: i for i, name in enumerate(dict.fromkeys(trace.problem_id for trace in one.traces))}
    return np.array([numbers[trace.problem_id] for trace in one.traces])


def test_information_is_the_curvature_of_a_baseline_that_did_not_shift(pair):
    one, model = pair[2], pair[3]
    # That of the strength depends on the trained model as well.
    assert model.information()[1:] == pytest.approx(-np.diag(model.curvature(np.zeros(3)))[1:])
    p_NK = np.exp(one.positions().base_logp_NK)
    chi_square_N = (p_NK * (model.ratio_NK - 1) ** 2).sum(1) + 1 - p_NK.sum(1)
    assert model.information()[0] == pytest.approx(chi_square_N.mean())


def test_a_full_strength_stays_a_distribution(tmp_path):
    base = baseline(traces=20)
    (one,) = read_probes([write(tmp_path, base, Planted(strength=1.0).logits(base))])
    assert (fit(one, problems(one)).theta_CD[:, 0] > 0.999).all()
    found = single_component_fits(one.positions(), TRAIN)
    assert found["ssd"]["unexplained_fraction"] < 0.02
    assert found["truncation"]["unexplained_fraction"] < 0.02


def test_the_search_finds_another_setting(tmp_path):
    """Trained toward T = 1.5 and top-p 0.8, where the probe predicted T = 1.1 and top-p 0.95."""
    base = baseline(traces=60)
    logp_NV = base.logits_NV.double().log_softmax(1)
    top = logp_NV.topk(20, dim=1)
    q_NV = torch.zeros_like(logp_NV).scatter_(
        1, top.indices, torch.from_numpy(truncated_distribution(top.values.numpy(), 1.5, 20, 0.8))
    )
    trained_NV = (0.6 * logp_NV.exp() + 0.4 * q_NV).log().float()
    (one,) = read_probes([write(tmp_path, base, trained_NV)])
    found = single_component_fits(one.positions(), TRAIN)
    assert found["truncation"]["temperature"] == pytest.approx(1.5, abs=0.05)
    assert (found["truncation"]["top_k"], found["truncation"]["top_p"]) == (20, 0.8)
    assert found["truncation"]["ssd_strength"] == pytest.approx(0.4, abs=0.01)
    assert found["truncation"]["unexplained_fraction"] < 0.01 < 0.1 < found["ssd"]["unexplained_fraction"]


def test_mixed_is_the_best_strength(pair):
    shift = pair[2].positions()
    ratio_NK = target_ratio(shift.base_logp_NK, *SETTING)
    s, gain = fit_mixture(shift, ratio_NK)
    model = MixtureModel(shift, ratio_NK)
    assert gain == pytest.approx(model.gain(np.array([s, 0, 0])).mean(), abs=1e-5)
    grid = [model.gain(np.array([one, 0, 0])).mean() for one in np.linspace(0, 0.99, 100)]
    assert gain >= max(grid) - 1e-5


def test_predictions_are_those_of_the_kernel(pair):
    """chi2 of the listed ratios, and of the rest with -1 each, is the column."""
    base, _, one, model = pair
    ratio_NK = model.ratio_NK
    p_NK = np.exp(one.positions().base_logp_NK)
    chi2_N = (p_NK * (ratio_NK - 1) ** 2).sum(1) + 1 - p_NK.sum(1)
    want_N = (base.logp_NV.exp().double() * base.log_ratio_NV.double().expm1() ** 2).sum(1).numpy()
    assert chi2_N == pytest.approx(want_N, rel=1e-4, abs=1e-6)
