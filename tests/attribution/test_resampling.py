"""Resamples, their quantiles, and the test that swaps arms, against what they should be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ssdfast.attribution.resampling import interval, quantiles, resample, seed_weights, sum_clusters, swap_test


def test_intervals_are_clustered_by_problem():
    """40 problems of 5 equal traces are 40 observations, not 200."""
    rng = np.random.default_rng(0)
    level = rng.standard_normal(40)
    sums_TX = np.stack([np.repeat(level, 5), np.ones(200)], 1)
    sums_GX = sum_clusters(sums_TX, np.repeat(np.arange(40), 5))
    sums_RX = resample(sums_GX, rng)
    found = interval(level.mean(), sums_RX[:, 0] / sums_RX[:, 1])
    assert found["ci_high"] - found["ci_low"] == pytest.approx(2 * 1.96 * level.std() / np.sqrt(40), rel=0.1)


@given(arrays.arrays(float, (30, 3), elements=st.floats(-5, 5)))
def test_quantiles_are_those_of_numpy(values):
    low, high = quantiles(values)
    assert np.stack([low, high]) == pytest.approx(np.percentile(values, [2.5, 97.5], axis=0))


def test_quantiles_leave_out_what_is_not_finite():
    values = np.array([[1.0, np.nan], [np.inf, np.nan], [2.0, -np.inf], [3.0, np.nan]])
    low, high = quantiles(values)
    assert (low[0], high[0]) == pytest.approx(np.percentile([1, 2, 3], [2.5, 97.5]))
    assert np.isnan([low[1], high[1]]).all()
    assert interval(1.0, values[:, 1]) == {"value": None, "ci_low": None, "ci_high": None}


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_drawn_seeds_show_the_variance_of_their_mean(seeds):
    """Over many arms, that of resample means is the sample variance over S."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal(seeds)
    weights_RS = seed_weights(seeds, rng)
    assert weights_RS.mean(1) == pytest.approx(1)
    means_R = weights_RS @ values / seeds
    assert means_R.var() == pytest.approx(values.var(ddof=1) / seeds, rel=0.1)


def test_one_seed_is_as_it_is():
    assert (seed_weights(1, np.random.default_rng(0)) == 1).all()


def test_swapping_arms_is_exact_where_they_are_exchangeable():
    """Problems with effects of their own and of unequal size; p-values of no difference are uniform."""
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(400):
        effect_G = rng.standard_normal(30)
        first, second = (
            np.stack([(effect_G + rng.standard_normal(30)) * size_G, size_G], 1)
            for size_G in (rng.integers(1, 9, 30).astype(float),) * 2
        )
        p_values.append(swap_test(first, second, 199, rng)[0][0])
    assert np.mean(np.array(p_values) <= 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.05)


def test_a_difference_is_found_and_an_undefined_one_is_none():
    rng = np.random.default_rng(0)
    first = np.stack([rng.standard_normal(50), np.ones(50), np.full(50, np.inf), np.ones(50)], 1)
    second = first + np.array([1.0, 0, 0, 0])
    p, difference = swap_test(first, second, 999, rng)
    assert p[0] == pytest.approx(1 / 1000)
    assert difference[0] == pytest.approx(1)
    assert np.isnan(p[1])
