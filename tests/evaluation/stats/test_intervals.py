"""Intervals have their published values and widths, and count problems rather than samples."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, t

from ssdfast.evaluation.stats.intervals import accuracy, bootstrap_by_problem, wilson
from ssdfast.evaluation.stats.pass_at_k import estimate_pass_at_k, mean_pass_at_k
from ssdfast.evaluation.stats.scores import gather_scores


def test_wilson_has_the_published_values_of_the_replication():
    found = wilson(659, 1000)
    assert [round(100 * end, 2) for end in (found.ci_low, found.ci_high)] == [62.91, 68.77]


@settings(deadline=None)
@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_wilson_ends_where_the_score_test_rejects(counts, level):
    successes, trials = counts
    found, z = wilson(successes, trials, level), norm.isf((1 - level) / 2)
    assert 0 <= found.ci_low <= found.value <= found.ci_high <= 1
    for end in (found.ci_low, found.ci_high):  # the roots of (p - estimate)^2 = z^2 p (1-p) / n
        assert (end - found.value) ** 2 == pytest.approx(z**2 * end * (1 - end) / trials, abs=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(-1, 10), (11, 10), (0, 0)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match=f"{successes} of {trials}"):
        wilson(successes, trials)


def test_one_sample_a_problem_is_wilson_and_several_are_a_bootstrap():
    ids, score = np.arange(40), np.arange(40) % 3 > 0
    assert accuracy(gather_scores(ids, score)) == wilson(int(score.sum()), 40)
    twice = accuracy(gather_scores(np.repeat(ids, 2), np.repeat(score, 2)))
    assert twice.ci_method == "bootstrap by problem"
    assert twice.value == pytest.approx(score.mean())
    graded = accuracy(gather_scores(ids, score * 0.5))
    assert graded.ci_method == "bootstrap by problem"


def test_copies_of_a_sample_do_not_narrow_the_interval():
    rng = np.random.default_rng(1)
    score = rng.random(300) < 0.6
    few, many = (accuracy(gather_scores(np.repeat(np.arange(300), n), np.repeat(score, n))) for n in (2, 20))
    assert (few.ci_low, few.ci_high) == (many.ci_low, many.ci_high)
    alone = wilson(int(score.sum()), 300)
    assert many.ci_high - many.ci_low == pytest.approx(alone.ci_high - alone.ci_low, rel=0.05)


def test_problems_weigh_the_same_however_many_samples_they_have():
    scores = gather_scores(np.array(["a"] * 9 + ["b"]), np.array([1.0] * 9 + [0.0]))
    assert accuracy(scores).value == 0.5


@pytest.mark.parametrize("problems", [8, 30, 1000])
def test_the_bootstrap_is_as_wide_as_students_interval(problems):
    value = np.random.default_rng(2).normal(size=problems)
    found = bootstrap_by_problem(value, (-9, 9), resamples=40_000)
    half = t.isf(0.025, problems - 1) * value.std(ddof=1) / np.sqrt(problems)
    assert (found.ci_high - found.ci_low) / 2 == pytest.approx(half, rel=0.06)


def test_problems_that_all_agree_leave_room_for_those_unseen():
    right = accuracy(gather_scores(np.repeat(np.arange(50), 4), np.ones(200)))
    alone = wilson(50, 50)
    assert (right.ci_low, right.ci_high) == pytest.approx((alone.ci_low, alone.ci_high))
    assert right.ci_method == "all problems agree"
    same = bootstrap_by_problem(np.zeros(50), (-1, 1))
    assert same.ci_low == -same.ci_high == pytest.approx(alone.ci_low - 1)


def test_the_same_seed_gives_the_same_interval_whatever_the_order_of_samples():
    rng = np.random.default_rng(3)
    ids, score = rng.integers(60, size=400), rng.random(400) < 0.5
    order = rng.permutation(400)
    first = accuracy(gather_scores(ids, score), seed=5)
    assert first == accuracy(gather_scores(ids[order], score[order]), seed=5)
    assert first != accuracy(gather_scores(ids, score), seed=6)


@pytest.mark.parametrize(
    ("ids", "score", "said"),
    [
        (["a", "b"], [1.0, np.nan], "the first nan of problem 'b'"),
        (["a", "b"], [1.5, 0.0], "the first 1.5 of problem 'a'"),
        (["a"], [1.0, 0.0], "do not match"),
        ([], [], "no samples"),
    ],
)
def test_scores_that_are_none_are_named(ids, score, said):
    with pytest.raises(ValueError, match=said):
        gather_scores(np.array(ids), np.array(score))


def test_a_single_problem_has_no_interval():
    with pytest.raises(ValueError, match="1 problem"):
        accuracy(gather_scores(np.array(["a", "a"]), np.array([1, 0])))
    with pytest.raises(ValueError, match="level of 95"):
        accuracy(gather_scores(np.array(["a", "b"]), np.array([1, 0])), level=95)


@settings(deadline=None)
@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_draws_of_k_with_one_right(case):
    n, c, k = case
    draws = [any(sample < c for sample in draw) for draw in combinations(range(n), k)]
    assert estimate_pass_at_k(np.array([c]), np.array([n]), k)[0] == pytest.approx(np.mean(draws), abs=1e-12)


def test_pass_at_k_does_not_overflow():
    from math import comb

    exact = 1 - comb(99_990, 5000) / comb(100_000, 5000)
    assert estimate_pass_at_k(np.array([10]), np.array([100_000]), 5000)[0] == pytest.approx(exact, rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_pass_at_1_is_the_accuracy_and_pass_at_n_any_right(seed):
    rng = np.random.default_rng(seed)
    right = rng.random((30, 4)) < rng.random((30, 1))
    right[0], right[1] = True, False
    scores = gather_scores(np.repeat(np.arange(30), 4), right.ravel())
    first = mean_pass_at_k(scores, 1, seed=3)
    assert (first.ci_low, first.ci_high) == pytest.approx(
        (accuracy(scores, seed=3).ci_low, accuracy(scores, seed=3).ci_high)
    )
    assert mean_pass_at_k(scores, 4).value == pytest.approx(right.any(axis=1).mean())


def test_pass_at_k_names_the_problem_that_has_too_few_samples():
    scores = gather_scores(np.array(["x", "x", "y"]), np.array([1, 0, 1]))
    with pytest.raises(ValueError, match="'y' with 1"):
        mean_pass_at_k(scores, 2)
    with pytest.raises(ValueError, match="pass@0"):
        mean_pass_at_k(scores, 0)
    with pytest.raises(ValueError, match=r"'b' scores 0\.5"):
        mean_pass_at_k(gather_scores(np.array(["a", "a", "b", "b"]), np.array([1, 0, 1, 0.5])), 1)
