"""Intervals have their published values and widths, and count problems rather than samples."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import betabinom, norm, t

from ssdfast.evaluation.stats.correlation import intraclass_correlation
from ssdfast.evaluation.stats.intervals import accuracy, trials_worth, wilson, wilson_by_problem
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


def test_one_sample_a_problem_is_wilson_and_several_are_wilson_by_problem():
    ids, score = np.arange(40), np.arange(40) % 3 > 0
    assert accuracy(gather_scores(ids, score)) == wilson(int(score.sum()), 40)
    twice = accuracy(gather_scores(np.repeat(ids, 2), np.repeat(score, 2)))
    assert twice.ci_method == "wilson by problem"
    assert twice.value == pytest.approx(score.mean())
    graded = accuracy(gather_scores(ids, score * 0.5))
    assert graded.ci_method == "wilson by problem"


def test_copies_of_a_sample_do_not_narrow_the_interval():
    rng = np.random.default_rng(1)
    score = rng.random(300) < 0.6
    few, many = (accuracy(gather_scores(np.repeat(np.arange(300), n), np.repeat(score, n))) for n in (2, 20))
    alone = wilson(int(score.sum()), 300)
    for copies in (few, many):
        assert copies.ci_high - copies.ci_low == pytest.approx(alone.ci_high - alone.ci_low, rel=0.02)


def test_problems_weigh_the_same_however_many_samples_they_have():
    scores = gather_scores(np.array(["a"] * 9 + ["b"]), np.array([1.0] * 9 + [0.0]))
    assert accuracy(scores).value == 0.5


@pytest.mark.parametrize("problems", [30, 1000])
def test_far_from_the_edges_the_interval_is_as_wide_as_students(problems):
    rng = np.random.default_rng(2)
    right = rng.random((problems, 8)) < rng.beta(1.5, 1.5, (problems, 1))
    found = accuracy(gather_scores(np.repeat(np.arange(problems), 8), right.ravel()))
    half = t.isf(0.025, problems - 1) * right.mean(axis=1).std(ddof=1) / np.sqrt(problems)
    assert (found.ci_high - found.ci_low) / 2 == pytest.approx(half, rel=0.05)


def test_trials_that_are_independent_are_worth_their_number_in_wilsons_interval():
    found = wilson_by_problem(np.repeat([0.0, 1.0], [3000, 7000]), 10_000)
    alone = wilson(7000, 10_000)
    assert (found.ci_low, found.ci_high) == pytest.approx((alone.ci_low, alone.ci_high), abs=1e-5)


def _posterior_median(counts, samples):
    """Of the correlation, by brute force on a fine grid and with SciPy's beta-binomial distribution."""
    mean_M = 1 / (1 + np.exp(-np.linspace(-16, 16, 1601)))[:, None]
    logit_R = np.linspace(-9, 9, 361)
    correlation_R = 1 / (1 + np.exp(-logit_R))
    size_R = 1 / correlation_R - 1
    log = 0.5 * np.log(mean_M * (1 - mean_M) * correlation_R * (1 - correlation_R))
    for value, times in zip(*np.unique(counts, return_counts=True), strict=True):
        log += times * betabinom.logpmf(value, samples, mean_M * size_R, (1 - mean_M) * size_R)
    mass_R = np.exp(log - log.max()).sum(axis=0)
    return 1 / (1 + np.exp(-np.interp(0.5, (np.cumsum(mass_R) - mass_R / 2) / mass_R.sum(), logit_R)))


@pytest.mark.parametrize(
    "counts", [[0] * 29 + [1], [0] * 30, [4] * 28 + [0, 3], [0, 1, 2, 3, 4] * 5, [2] * 20, [0, 4] * 15]
)
def test_the_correlation_is_the_posterior_median_of_a_beta_binomial(counts):
    found = intraclass_correlation(np.array(counts, float), np.full(len(counts), 4))
    assert found == pytest.approx(_posterior_median(np.array(counts), 4), rel=0.02)


def test_a_single_rare_sample_does_not_count_as_independence():
    value = np.array([1 / 16] + [0.0] * 29)
    assert value.mean() * (1 - value.mean()) / (value.var(ddof=1) / 30) > 450  # what the variance alone says
    assert trials_worth(value, np.full(30, 16)) < 200


def test_problems_that_all_agree_leave_room_for_those_unseen():
    right = accuracy(gather_scores(np.repeat(np.arange(50), 4), np.ones(200)))
    assert right.ci_high == 1
    assert wilson(50, 50).ci_low < right.ci_low < wilson(200, 200).ci_low


def test_graded_scores_are_narrower_than_correct_or_incorrect_ones_of_the_same_mean():
    rng = np.random.default_rng(4)
    ids, score = np.repeat(np.arange(100), 2), 0.5 + rng.uniform(-0.1, 0.1, 200)
    graded = accuracy(gather_scores(ids, score))
    half = t.isf(0.025, 99) * gather_scores(ids, score).mean_P.std(ddof=1) / 10
    assert (graded.ci_high - graded.ci_low) / 2 == pytest.approx(half, rel=0.15)


def misses(studies, problems, samples, mean, correlation, seed):
    """The fractions of intervals that end below, and that begin above the true mean."""
    rng, size = np.random.default_rng(seed), 1 / correlation - 1
    ids, ends = np.repeat(np.arange(problems), samples), []
    for _ in range(studies):
        chance = np.repeat(rng.beta(mean * size, (1 - mean) * size, problems), samples)
        interval = accuracy(gather_scores(ids, rng.random(len(ids)) < chance))
        ends.append((interval.ci_high < mean, interval.ci_low > mean))
    return np.mean(ends, axis=0)


@pytest.mark.parametrize(
    ("problems", "samples", "mean", "correlation"),
    [(30, 16, 0.98, 0.3), (30, 16, 0.02, 0.6), (100, 4, 0.98, 0.6), (100, 4, 0.9, 0.1)],
)
def test_at_the_edges_each_side_misses_rarely(problems, samples, mean, correlation):
    found, error = misses(800, problems, samples, mean, correlation, seed=6), 3 * np.sqrt(0.04 * 0.96 / 800)
    assert found.max() <= 0.04 + error
    assert found.sum() >= 0.005  # nor is it all of [0, 1]


@st.composite
def samples_of_problems(draw):
    sizes = draw(st.lists(st.integers(1, 6), min_size=2, max_size=12))
    graded = draw(st.booleans())
    # Of a score of 1e-300, the mirrored one is 1 exactly, and then it counts as correct.
    value = st.integers(0, 1000).map(lambda n: n / 1000) if graded else st.sampled_from([0.0, 1.0])
    total = sum(sizes)
    return np.repeat(np.arange(len(sizes)), sizes), np.array(draw(st.lists(value, min_size=total, max_size=total)))


@settings(deadline=None)
@given(samples_of_problems(), st.floats(0.5, 0.999))
def test_intervals_hold_the_estimate_and_mirror_and_widen_with_the_level(case, level):
    ids, score = case
    found, mirrored = accuracy(gather_scores(ids, score), level), accuracy(gather_scores(ids, 1 - score), level)
    assert 0 <= found.ci_low <= found.value <= found.ci_high <= 1
    assert (1 - mirrored.ci_high, 1 - mirrored.ci_low) == pytest.approx((found.ci_low, found.ci_high), abs=1e-6)
    wider = accuracy(gather_scores(ids, score), level + (1 - level) / 2)
    assert wider.ci_low <= found.ci_low + 1e-12
    assert wider.ci_high >= found.ci_high - 1e-12


def test_the_order_of_samples_does_not_matter():
    rng = np.random.default_rng(3)
    ids, score = rng.integers(60, size=400), rng.random(400) < 0.5
    order = rng.permutation(400)
    assert accuracy(gather_scores(ids, score)) == accuracy(gather_scores(ids[order], score[order]))


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
    assert mean_pass_at_k(scores, 1) == accuracy(scores)
    assert mean_pass_at_k(scores, 4) == wilson(int(right.any(axis=1).sum()), 30)
    assert mean_pass_at_k(scores, 4).value == pytest.approx(right.any(axis=1).mean())


def test_pass_at_k_names_the_problem_that_has_too_few_samples():
    scores = gather_scores(np.array(["x", "x", "y"]), np.array([1, 0, 1]))
    with pytest.raises(ValueError, match="'y' with 1"):
        mean_pass_at_k(scores, 2)
    with pytest.raises(ValueError, match="pass@0"):
        mean_pass_at_k(scores, 0)
    with pytest.raises(ValueError, match=r"'b' scores 0\.5"):
        mean_pass_at_k(gather_scores(np.array(["a", "a", "b", "b"]), np.array([1, 0, 1, 0.5])), 1)
