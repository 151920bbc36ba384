"""Corrected p-values against the step-by-step rule and statsmodels; resamples against the moments of a multinomial."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdfast.statistics import bootstrap_counts, bootstrap_sums, holm


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 0.2), min_size=1, max_size=5))
def test_holm_rejects_step_by_step(p_values):
    adjusted = holm(p_values)
    alpha, left, rejected = 0.05, len(p_values), set()
    for index in np.argsort(p_values, kind="stable"):
        if p_values[index] * left > alpha:
            break
        rejected.add(int(index))
        left -= 1
    assert {n for n, p in enumerate(adjusted) if p <= alpha} == rejected
    assert (adjusted >= np.array(p_values)).all()
    assert (adjusted <= 1).all()


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    for bad in ([], [0.1, float("nan")], [1.2]):
        with pytest.raises(ValueError, match="p-values must be in"):
            holm(bad)


def test_holm_is_that_of_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p_values = np.random.default_rng(0).random(40) ** 3
    assert holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1])


@pytest.mark.parametrize("sizes", [[8], [5, 3], [1, 1, 6]])
def test_every_resample_has_as_many_draws_as_clusters(sizes):
    """A cluster's count has mean 1 and variance 1 - 1/G, two together -1/G, whatever the blocks."""
    counts_RG = np.concatenate(list(bootstrap_counts(sizes, 60_000, np.random.default_rng(0))), axis=1)
    assert (counts_RG.sum(1) == 8).all()
    assert np.cov(counts_RG.T) == pytest.approx(np.eye(8) - 1 / 8, abs=0.03)
    assert counts_RG.mean(0) == pytest.approx(np.ones(8), abs=0.02)


def test_nothing_to_draw_gives_no_block():
    assert list(bootstrap_counts([], 10, np.random.default_rng(0))) == []


def test_sums_are_those_of_the_counts():
    """Two strata, one of them larger than a block."""
    rng = np.random.default_rng(0)
    strata = [rng.standard_normal((600, 3)), rng.standard_normal((5, 3))]
    sums_RLX = bootstrap_sums(strata, 50, np.random.default_rng(1))
    counts = [np.concatenate(list(bootstrap_counts([512, 88, 5], 50, np.random.default_rng(1))), axis=1)]
    assert sums_RLX[:, 0] == pytest.approx(counts[0][:, :600] @ strata[0])
    assert sums_RLX[:, 1] == pytest.approx(counts[0][:, 600:] @ strata[1])
