"""Arms are paired by problem, tested by the right test, and refused where they answer different problems."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdfast.evaluation.stats.detectable import discordant_at, mcnemar_power, smallest_detectable
from ssdfast.evaluation.stats.paired_tests import compare, mcnemar, sign_flips
from ssdfast.evaluation.stats.scores import gather_scores


def arms(seed, problems=200, samples=4, effect=0.1):
    rng = np.random.default_rng(seed)
    chance = rng.beta(0.3, 0.3, problems) * (1 - effect)
    ids = np.repeat([f"p{n}" for n in range(problems)], samples)
    return tuple(
        gather_scores(ids, rng.random(problems * samples) < np.repeat(chance + shift, samples)) for shift in (0, effect)
    )


def test_mcnemar_is_the_sign_test_of_the_problems_that_differ():
    assert mcnemar(10, 2) == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert mcnemar(2, 10) == mcnemar(10, 2)
    assert mcnemar(3, 3) == mcnemar(0, 0) == 1
    assert mcnemar(5, 0) == pytest.approx(2 / 32)


def test_one_sample_a_problem_goes_to_mcnemar():
    ids = np.arange(100)
    first, second = np.zeros(100), np.zeros(100)
    first[:2], second[2:12], first[50:], second[50:] = 1, 1, 1, 1
    found = compare(gather_scores(ids, first), gather_scores(ids, second))
    assert (found.test, found.p_value) == ("exact McNemar", mcnemar(10, 2))
    assert found.difference_pp.value == pytest.approx(8)
    assert (found.problems, found.num_discordant) == (100, 12)
    assert found.difference_pp.ci_low < 8 < found.difference_pp.ci_high


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-4, 4).map(lambda n: n / 4), min_size=1, max_size=9))
def test_sign_flips_are_all_of_them_where_few(differences):
    d = np.array(differences)
    sums = np.array([np.dot(signs, d) for signs in product((-1, 1), repeat=len(d))])
    assert sign_flips(d) == pytest.approx(np.mean(np.abs(sums) >= abs(d.sum()) - 1e-9))


def test_sign_flips_agree_with_the_exact_test_and_are_never_zero():
    ones = np.repeat([1.0, -1.0], [40, 22])
    assert sign_flips(ones) == pytest.approx(mcnemar(40, 22), abs=4 * np.sqrt(0.03 * 0.97 / 10_000))
    assert sign_flips(np.ones(500), resamples=999) == pytest.approx(2 / 1000)


def test_arms_change_places():
    first, second = arms(0)
    there, back = compare(first, second), compare(second, first)
    assert there.difference_pp.value == -back.difference_pp.value > 0
    assert (there.difference_pp.ci_low, there.difference_pp.ci_high) == pytest.approx(
        (-back.difference_pp.ci_high, -back.difference_pp.ci_low), abs=1.0
    )
    assert there.test == "sign flips by problem"
    assert there.p_value < 0.01


def test_pairing_takes_the_problems_own_difficulty_out():
    rng = np.random.default_rng(1)
    hard = rng.random(400) < 0.5
    ids = np.repeat(np.arange(400), 2)
    first = gather_scores(ids, np.repeat(hard, 2))
    better = hard | (rng.random(400) < 0.12)
    found = compare(first, gather_scores(ids, np.repeat(better, 2)))
    alone = 1.96 * np.sqrt(2 * 0.25 / 400) * 100
    assert found.difference_pp.ci_high - found.difference_pp.ci_low < alone
    assert found.p_value < 0.01


def test_the_order_of_samples_does_not_matter_and_the_seed_is_that_of_the_sign_flips():
    rng = np.random.default_rng(2)
    ids, first, second = np.repeat(np.arange(50), 3), rng.random(150) < 0.5, rng.random(150) < 0.5
    order = rng.permutation(150)
    there = compare(gather_scores(ids, first), gather_scores(ids, second))
    assert there == compare(gather_scores(ids, first), gather_scores(ids[order], second[order]))
    other = compare(gather_scores(ids, first), gather_scores(ids, second), seed=9)
    assert (other.difference_pp, other.mde_pp) == (there.difference_pp, there.mde_pp)
    assert other.p_value != there.p_value


def test_arms_that_never_differ_say_how_much_could_hide():
    ids = np.repeat(np.arange(80), 2)
    same = gather_scores(ids, np.repeat(np.arange(80) % 2, 2))
    found = compare(same, same)
    assert (found.difference_pp.value, found.p_value, found.mde_pp, found.num_discordant) == (0, 1, None, 0)
    assert found.difference_pp.ci_low == -found.difference_pp.ci_high < -1
    assert "minimum detectable effect: unknown" in str(found)


def test_the_detectable_effect_stands_beside_the_difference():
    found = compare(*arms(3))
    spread = np.std(np.subtract(*(arm.mean_P for arm in arms(3))), ddof=1)
    least = 100 * (1.960 + 0.842) * spread / np.sqrt(200)
    assert found.mde_pp == pytest.approx(least, rel=0.1)  # an effect changes the variance
    assert f"{found.mde_pp:.1f} percentage points" in str(found)


def test_the_detectable_effect_of_single_samples_is_that_of_mcnemar():
    ids = np.arange(100)
    first, second = np.zeros(100), np.zeros(100)
    first[:65], second[:60], second[65:70] = 1, 1, 1  # 5 lost, 5 gained, 30 wrong in both
    found = compare(gather_scores(ids, first), gather_scores(ids, second))
    assert found.mde_pp / 100 == smallest_detectable(
        lambda effect: mcnemar_power(effect, discordant_at(effect, 0.1, 0.65), 100, 1 - 0.95), 0.65, 0.8
    )
    assert found.mde_pp > 1.3 * 100 * (1.960 + 0.842) * np.sqrt(0.1 / 100)  # more than the t-test's
    few = compare(gather_scores(ids, first), gather_scores(ids, np.r_[first[:61], np.zeros(39)]))
    assert few.mde_pp is None


def test_different_problems_are_refused_and_named():
    first = gather_scores(np.array(["a", "b", "c"]), np.ones(3))
    second = gather_scores(np.array(["b", "x1", "x2", "x3", "x4"]), np.ones(5))
    with pytest.raises(
        ValueError, match=r"2 only in the first \(a, c\) and 4 only in the second \(x1, x2, x3 and 1 more\)"
    ):
        compare(first, second)
