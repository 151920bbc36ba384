"""The sequential test has the published bounds, keeps its promises in simulation, and ends only for a reason."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from ssdfast.evaluation.stats.sequential import SequentialTest, bound, spent


def run(differences, looks=5, margin=2.0, maximum=None):
    test = SequentialTest(maximum or len(differences), margin)
    for batch in np.array_split(differences, looks):
        if test.look(batch).stopped:
            break
    return test.looks[-1]


def test_bounds_of_five_equal_looks_are_the_published_ones():
    fractions = (0.2, 0.4, 0.6, 0.8, 1.0)
    found = [bound(fractions[: n + 1]) for n in range(5)]
    assert found == pytest.approx([4.8769, 3.3569, 2.6803, 2.2898, 2.0310], abs=2e-4)


def test_a_single_look_is_the_fixed_test():
    assert bound((1.0,)) == pytest.approx(1.959964, abs=1e-6)
    assert bound((1.0,), 0.01) == pytest.approx(2.575829, abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(30, 99), min_size=1, max_size=3, unique=True), st.sampled_from([0.01, 0.05, 0.2]))
def test_what_is_spent_is_the_chance_of_crossing(percents, alpha):
    """Against the multivariate normal distribution of all looks together."""
    times = np.array([*sorted(percents), 100]) / 100
    z = np.array([bound(tuple(times[: n + 1]), alpha) for n in range(len(times))])
    z = np.minimum(z, 12.0)
    covariance = np.sqrt(np.minimum.outer(times, times) / np.maximum.outer(times, times))
    inside = multivariate_normal.cdf(
        z, cov=covariance, lower_limit=-z, rng=np.random.default_rng(0), maxpts=500_000, abseps=1e-6
    )
    assert 1 - inside == pytest.approx(alpha, abs=2e-4)
    assert spent(1.0, alpha) == pytest.approx(alpha)


def test_looking_at_every_problem_is_allowed():
    times = tuple(np.arange(1, 101) / 100)
    found = [bound(times[:n]) for n in range(1, 101)]
    assert found[0] == np.inf
    assert 2.0 < found[-1] < 2.3
    assert all(np.diff([z for z in found if z < 9]) < 1e-6)


def share_better(effect, studies, problems=400):
    rng, ends = np.random.default_rng(4), []
    for _ in range(studies):
        first = rng.beta(0.115, 0.062, problems)
        second = np.where(rng.random(problems) < 0.1, rng.beta(0.115, 0.062, problems), first)
        second = 1 - (1 - second) * (1 - effect / 0.35)
        ends.append(run((rng.random(problems) < second) * 1.0 - (rng.random(problems) < first)))
    return np.mean(["better" in end.decision for end in ends]), np.mean([end.problems for end in ends]) / problems, ends


def test_false_findings_keep_to_alpha():
    found, _, _ = share_better(0.0, 1500)
    assert found <= 0.05 + 2.33 * np.sqrt(0.05 * 0.95 / 1500)
    assert found >= 0.02  # nor is it a test that never finds anything


def test_a_real_difference_is_found_early_and_on_its_own_side():
    found, problems, ends = share_better(0.12, 300)
    assert found > 0.97
    assert problems < 0.8
    assert not any(end.decision == "baseline_better" for end in ends)


def test_the_interval_holds_the_truth_at_all_looks_together():
    rng, missed = np.random.default_rng(5), 0
    for _ in range(1500):
        test = SequentialTest(400, 1e-9)
        for batch in np.array_split(rng.choice([-1.0, 0.0, 1.0], 400, p=[0.15, 0.7, 0.15]), 5):
            if test.look(batch).stopped:
                break
        missed += any(not look.difference_pp.ci_low <= 0 <= look.difference_pp.ci_high for look in test.looks)
    assert missed / 1500 <= 0.05 + 2.33 * np.sqrt(0.05 * 0.95 / 1500)


def test_each_side_is_named():
    better = np.tile([1.0, 1.0, 0.0, 1.0, -1.0], 80)
    assert run(better).decision == "run_better"
    assert run(-better).decision == "baseline_better"
    assert run(better).problems < 400
    up, down = run(better), run(-better)
    assert (up.difference_pp.value, up.difference_pp.ci_low, up.difference_pp.ci_high) == pytest.approx(
        (-down.difference_pp.value, -down.difference_pp.ci_high, -down.difference_pp.ci_low)
    )


def test_arms_that_agree_everywhere_end_with_no_difference_within_the_margin():
    end = run(np.zeros(1000))
    assert end.decision == "equivalent"
    assert end.problems < 1000
    assert -2 < end.difference_pp.ci_low < 0 < end.difference_pp.ci_high < 2


def test_a_handful_of_problems_all_one_way_decide_nothing():
    differences = np.zeros(1000)
    differences[:: 1000 // 5] = 1.0  # 5 of 5: the exact two-sided p-value is 1/16
    assert run(differences).decision in ("undecided", "equivalent")
    differences[np.arange(12) * 80 + 1] = 1.0
    assert run(differences).decision == "run_better"


def test_a_hopeless_question_ends_early_and_undecided():
    rng = np.random.default_rng(6)
    differences = rng.permutation(np.repeat([1.0, -1.0, 0.0], [60, 60, 80]))
    differences = np.concatenate([differences] * 5)  # as noisy as can be, no difference at all, margin out of reach
    end = run(differences, margin=0.5)
    assert (end.decision, end.stopped) == ("undecided", True)
    assert end.problems < 1000


def test_the_first_problems_never_end_it_by_themselves():
    rng = np.random.default_rng(7)
    test = SequentialTest(500, 2.0)
    for _ in range(50):
        assert not test.look(rng.choice([-1.0, 0.0, 1.0], 1)).stopped


def test_misuse_is_refused_by_name():
    for maximum, margin, alpha in ((1, 2.0, 0.05), (10, 0.0, 0.05), (10, 2.0, 5)):
        with pytest.raises(ValueError, match="there is no sequential test"):
            SequentialTest(maximum, margin, alpha)
    test = SequentialTest(20, 2.0)
    for bad, said in (([], "no list"), ([0.0, np.nan], "difference 1 of the batch is nan"), ([100.0], "is 100")):
        with pytest.raises(ValueError, match=said):
            test.look(np.array(bad))
    with pytest.raises(ValueError, match="21 problems are more than the maximum of 20"):
        test.look(np.zeros(21))
    assert test.looks == []
    assert test.look(np.tile([1.0, -1.0], 10)).stopped
    with pytest.raises(ValueError, match="ended after 20 problems"):
        test.look(np.zeros(1))


@pytest.mark.parametrize(("seen", "points"), [(400, 1.5), (600, 0.0), (600, 1.0), (800, 3.0)])
def test_the_chance_of_deciding_is_that_of_simulated_remainders(seen, points):
    """The truth drawn about the mean so far, the rest drawn about the truth, and a last look at the maximum."""
    maximum, deviation, rng = 1000, 0.3, np.random.default_rng(8)
    batch = rng.permutation(np.tile([1.0, -1.0], seen // 2)) * deviation + points / 100
    test = SequentialTest(maximum, equivalence_margin_pp=2.5)
    test.look(batch)
    deviation = np.sqrt(deviation**2 + 2 / seen)  # with the two further problems
    truth = points / 100 + rng.normal(size=100_000) * deviation / np.sqrt(seen)
    rest = truth + rng.normal(size=100_000) * deviation / np.sqrt(maximum - seen)
    end = np.abs(seen * points / 100 + (maximum - seen) * rest) / maximum
    half = bound((seen / maximum, 1.0)) * deviation / np.sqrt(maximum)
    decided = np.mean((end > half) | (end < 0.025 - half))
    assert 0.01 < decided < 0.999
    assert test._chance_of_decision(points / 100) == pytest.approx(decided, abs=0.01)
