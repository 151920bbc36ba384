"""Intervals of paired differences have their published values, and hold where few problems differ."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from ssdfast.evaluation.stats.intervals import accuracy
from ssdfast.evaluation.stats.paired_intervals import bonett_price, mover, paired_difference
from ssdfast.evaluation.stats.scores import gather_scores


def test_bonett_price_has_the_values_of_its_formula():
    # (b + 1) / (n + 2), (c + 1) / (n + 2), and the variance of their difference, as published with a normal quantile
    gained, lost, problems = 12, 3, 2000
    found = bonett_price(np.repeat([1.0, -1.0, 0.0], [gained, lost, problems - gained - lost]))
    p, q = (gained + 1) / (problems + 2), (lost + 1) / (problems + 2)
    half = norm.isf(0.025) * np.sqrt((p + q - (p - q) ** 2) / (problems + 2))
    assert (found.ci_low, found.ci_high) == pytest.approx((p - q - half, p - q + half), abs=1e-5)
    assert found.value == (gained - lost) / problems


def test_independent_runs_are_squared_and_added():
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(400), 2)
    runs = [gather_scores(ids, rng.random(800) < chance) for chance in (0.3, 0.5)]
    first, second = (accuracy(run) for run in runs)
    found = mover(*runs)
    low = np.hypot(second.value - second.ci_low, first.ci_high - first.value)
    assert found.value - found.ci_low == pytest.approx(low, rel=0.1)  # a correlation of chance remains


def test_problems_in_common_narrow_the_interval():
    rng = np.random.default_rng(1)
    chance = np.repeat(rng.beta(0.4, 0.4, 200), 4)
    ids = np.repeat(np.arange(200), 4)
    baseline, run, other = (gather_scores(ids, rng.random(800) < p) for p in (chance, chance, chance[::-1]))
    paired, apart = mover(baseline, run), mover(baseline, other)
    assert paired.ci_high - paired.ci_low < 0.7 * (apart.ci_high - apart.ci_low)


def test_runs_that_never_differ_leave_room_for_a_difference():
    ids = np.repeat(np.arange(60), 4)
    half = gather_scores(ids, np.repeat(np.arange(60) % 2, 4))
    found = paired_difference(half, half)
    assert found.ci_method == "bonett-price"
    assert found.ci_low == -found.ci_high < -0.02


@pytest.mark.parametrize(("problems", "samples"), [(30, 16), (100, 1)])
def test_near_the_edge_each_side_misses_rarely(problems, samples):
    """A baseline at 98 %, whose run answers all but a few more of its samples right."""
    rng, ends, effect = np.random.default_rng(2), [], 0.015
    ids = np.repeat(np.arange(problems), samples)
    for _ in range(600):
        chance = rng.beta(0.98 * 2 / 3, 0.02 * 2 / 3, problems)
        runs = [
            gather_scores(ids, rng.random(len(ids)) < np.repeat(p, samples))
            for p in (chance, 1 - (1 - chance) * (1 - effect / 0.02))
        ]
        interval = paired_difference(*runs)
        ends.append((interval.ci_high < effect, interval.ci_low > effect))
    assert np.max(np.mean(ends, axis=0)) <= 0.04 + 3 * np.sqrt(0.04 * 0.96 / 600)


@st.composite
def pairs(draw):
    problems, samples = draw(st.integers(2, 12)), draw(st.integers(1, 4))
    total = problems * samples
    scores = [draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=total, max_size=total)) for _ in range(2)]
    return [gather_scores(np.repeat(np.arange(problems), samples), np.array(score)) for score in scores]


@settings(deadline=None)
@given(pairs(), st.floats(0.5, 0.99))
def test_intervals_hold_the_estimate_and_change_sign_with_the_runs(runs, level):
    baseline, run = runs
    found, back = paired_difference(baseline, run, level), paired_difference(run, baseline, level)
    assert -1 <= found.ci_low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.ci_high <= 1
    assert (-back.ci_high, -back.ci_low) == pytest.approx((found.ci_low, found.ci_high), abs=1e-9)


def test_one_problem_has_no_interval():
    one = gather_scores(np.array(["a"]), np.array([1.0]))
    with pytest.raises(ValueError, match="1 problem has no interval"):
        paired_difference(one, one)
