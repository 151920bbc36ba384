"""Intervals and tests over problems and seeds, against simulations of what they are about."""

import numpy as np
import pytest
from scipy import stats

from ssdfast.attribution.estimates import (
    Estimates,
    Variance,
    intervals,
    mean,
    p_value,
    ratio_estimates,
    variance,
)

PROBLEMS = 40


def trainings(rng, seeds, seed_sd, problem_sd, own_sd, common_GX):
    """Estimates of some trainings: a mean over problems of what is common to all, to the training, and to both."""
    made = []
    for _ in range(seeds):
        value_GX = seed_sd * rng.standard_normal(common_GX.shape[1]) + problem_sd * common_GX
        value_GX = value_GX + own_sd * rng.standard_normal(common_GX.shape)
        made.append(Estimates(value_GX.mean(0), (value_GX - value_GX.mean(0)) / len(value_GX)))
    return made


@pytest.mark.parametrize(("seed_sd", "problem_sd", "own_sd"), [(1, 0, 0.1), (0.1, 1, 0), (0, 0, 1), (0.2, 1, 1)])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_cover_whatever_varies(seeds, seed_sd, problem_sd, own_sd):
    """Seeds, problems, or seeds that differ from problem to problem; 4,000 statistics at once."""
    rng = np.random.default_rng(seeds)
    common_GX = rng.standard_normal((PROBLEMS, 4000))
    arm = trainings(rng, seeds, seed_sd, problem_sd, own_sd, common_GX)
    low_high = [(entry["ci_low"], entry["ci_high"]) for entry in intervals(mean(arm), variance(arm))]
    covered = np.mean([low <= 0 <= high for low, high in low_high])
    assert 0.935 <= covered <= 0.995
    if problem_sd == 0 and seed_sd == 1:
        assert covered == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize(("first", "second"), [(2, 2), (3, 3), (1, 3), (5, 2)])
@pytest.mark.parametrize(("seed_sd", "problem_sd", "own_sd"), [(1, 0, 0.1), (0.2, 1, 1)])
def test_arms_of_one_recipe_differ_at_the_nominal_rate(first, second, seed_sd, problem_sd, own_sd):
    rng = np.random.default_rng(0)
    common_GX = rng.standard_normal((PROBLEMS, 4000))
    arm, control = (trainings(rng, n, seed_sd, problem_sd, own_sd, common_GX) for n in (first, second))
    spread = variance(arm, control)
    difference_X = mean(arm) - mean(control)
    rejected = [not entry["ci_low"] <= 0 <= entry["ci_high"] for entry in intervals(difference_X, spread)]
    # Welch's test of very few seeds is conservative.
    assert 0.005 <= np.mean(rejected) <= (0.075 if (first, second) == (5, 2) else 0.06)


def test_arms_that_vary_unlike_differ_at_the_nominal_rate():
    """Three seeds each, those of one arm varying three times as much."""
    rng = np.random.default_rng(0)
    common_GX = rng.standard_normal((PROBLEMS, 4000))
    arm, control = (trainings(rng, 3, seed_sd, 0.1, 0.1, common_GX) for seed_sd in (3.0, 1.0))
    difference_X, spread = mean(arm) - mean(control), variance(arm, control)
    assert np.mean(spread.p_value_X(difference_X**2) <= 0.05) == pytest.approx(0.05, abs=0.012)


def test_an_arm_of_one_seed_takes_the_others_variance():
    rng = np.random.default_rng(0)
    common_GX = rng.standard_normal((PROBLEMS, 4000))
    arm, control = (trainings(rng, n, 1.0, 0.1, 0.1, common_GX) for n in (1, 3))
    difference_X, spread = mean(arm) - mean(control), variance(arm, control)
    assert np.mean(spread.p_value_X(difference_X**2) <= 0.05) == pytest.approx(0.05, abs=0.012)
    assert spread.seed_freedom_X == pytest.approx(2)


def test_with_several_seeds_and_no_problems_the_test_is_welchs():
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal(3), 1 + rng.standard_normal(4)

    def arm(values):
        return [Estimates(np.array([value]), np.zeros((PROBLEMS, 1))) for value in values]

    spread = variance(arm(first), arm(second))
    found = p_value(mean(arm(first)) - mean(arm(second)), spread, np.ones(1))
    assert found == pytest.approx(stats.ttest_ind(first, second, equal_var=False).pvalue)
    (entry,) = intervals(mean(arm(first)), variance(arm(first)))
    expected = stats.t.interval(0.95, 2, first.mean(), stats.sem(first))
    assert (entry["ci_low"], entry["ci_high"]) == pytest.approx(expected)


def test_with_one_seed_the_interval_is_that_of_the_problems():
    rng = np.random.default_rng(0)
    value_G = rng.standard_normal(PROBLEMS)
    one = [Estimates(value_G.mean(keepdims=True), ((value_G - value_G.mean()) / PROBLEMS)[:, None])]
    (entry,) = intervals(mean(one), variance(one))
    expected = stats.t.interval(0.95, PROBLEMS - 1, value_G.mean(), stats.sem(value_G))
    assert (entry["ci_low"], entry["ci_high"]) == pytest.approx(expected)


def test_several_statistics_together_hold_their_level_and_find_a_difference_in_any():
    rng = np.random.default_rng(0)
    weights = np.array([1.0, 4.0, 0.5])
    p_values, found = [], []
    for _ in range(1000):
        common_GX = rng.standard_normal((PROBLEMS, 3))
        arm, control = (trainings(rng, 3, 0.3, 0.5, 0.5, common_GX) for _ in range(2))
        spread = variance(arm, control)
        difference_X = mean(arm) - mean(control)
        p_values.append(p_value(difference_X, spread, weights))
        found.append(p_value(difference_X + np.array([0, 2.5, 0]), spread, weights))
    assert np.mean(np.array(p_values) <= 0.05) <= 0.055
    assert np.mean(np.array(found) <= 0.05) > 0.8


def test_a_ratio_and_its_influence_are_those_of_leaving_problems_out():
    rng = np.random.default_rng(0)
    sums_GX = rng.uniform(1, 2, (PROBLEMS, 4))
    whole = ratio_estimates(sums_GX)
    jackknife = [ratio_estimates(np.delete(sums_GX, g, 0)).value_X - whole.value_X for g in range(PROBLEMS)]
    assert whole.value_X == pytest.approx(sums_GX[:, ::2].sum(0) / sums_GX[:, 1::2].sum(0))
    assert -np.array(jackknife) == pytest.approx(whole.influence_GX, rel=0.06, abs=1e-5)
    assert whole.influence_GX.sum(0) == pytest.approx(0, abs=1e-12)


def test_what_is_undefined_is_none_and_what_is_exact_has_no_width():
    values = np.array([np.nan, 1.0, 2.0])
    spread = Variance([], np.array([1.0, 0.0, np.nan]), 9)
    undefined, exact, without_error = intervals(values, spread)
    assert undefined == without_error == {"value": None, "ci_low": None, "ci_high": None}
    assert exact == {"value": 1.0, "ci_low": 1.0, "ci_high": 1.0}
    assert p_value(np.zeros(3), spread, np.array([0.0, 1.0, 0.0])) == 1.0
    assert p_value(np.array([np.nan]), Variance([], np.ones(1), 9), np.ones(1)) is None
