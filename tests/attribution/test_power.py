"""What a design can find, against simulated t-tests."""

import numpy as np
import pytest
from scipy import stats

from ssdfast.attribution.power import (
    POWER,
    detectable_difference,
    detectable_in_seed_sds,
    minimum_detectable,
    seeds_needed,
)


@pytest.mark.parametrize(("seeds", "tests"), [(2, 1), (3, 4), (5, 12)])
def test_the_minimum_detectable_difference_is_found_with_its_power(seeds, tests):
    rng = np.random.default_rng(0)
    difference = detectable_in_seed_sds(seeds, tests)
    first, second = rng.standard_normal((2, 20_000, seeds))
    p = stats.ttest_ind(first + difference, second, axis=1, equal_var=False).pvalue
    assert np.mean(p <= 0.05 / tests) == pytest.approx(POWER, abs=0.02)


@pytest.mark.parametrize("seeds", [(2, 5), (4, 2), (1, 3)])
def test_unequal_seeds_have_their_power_too(seeds):
    rng = np.random.default_rng(0)
    variance = 1 / seeds[0] + 1 / seeds[1]
    difference = minimum_detectable(variance, seeds, 0.0, 2, 4)
    first, second = (rng.standard_normal((20_000, count)) for count in seeds)
    if 1 in seeds:
        error = second.std(1, ddof=1) * np.sqrt(variance)
        p = 2 * stats.t.sf(np.abs(first.mean(1) + difference - second.mean(1)) / error, seeds[1] - 1)
    else:
        p = stats.ttest_ind(first + difference, second, axis=1, equal_var=False).pvalue
    assert np.mean(p <= 0.05 / 4) == pytest.approx(POWER, abs=0.03)


def test_seeds_that_are_needed_are_the_fewest_that_do():
    seeds = seeds_needed(0.1, 0.04, 4)
    assert 0.04 * detectable_in_seed_sds(seeds, 4) <= 0.1
    assert 0.04 * detectable_in_seed_sds(seeds - 1, 4) > 0.1
    assert seeds_needed(10.0, 0.04, 4) == 2
    assert seeds_needed(1e-6, 0.04, 4) is None


def test_more_seeds_and_more_problems_find_less():
    by_seeds = [detectable_difference(seeds, 100, 0.04, 0.2, 12) for seeds in (2, 3, 5, 10)]
    by_problems = [detectable_difference(5, problems, 0.04, 0.2, 12) for problems in (10, 30, 100, 1000)]
    for differences in (by_seeds, by_problems):
        assert differences == sorted(differences, reverse=True)
    assert by_problems[-1] == pytest.approx(detectable_difference(5, 10**6, 0.04, 0.2, 12), rel=0.02)
    assert detectable_difference(1, 100, 0.04, 0.2, 12) is None
    assert detectable_difference(2, 100, 0.0, 0.0, 12) == 0
