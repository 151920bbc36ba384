"""Variance parts are those that scores were drawn with; power is the share of studies that find the effect."""

import numpy as np
import pytest
from scipy.stats import binom, ttest_1samp

from ssdfast.evaluation.stats.power import (
    PairedDesign,
    PairedVariance,
    paired_variance,
    planned_mde_pp,
    variance_components,
)
from ssdfast.evaluation.stats.scores import gather_scores


def test_parts_by_hand():
    # means 1, 1/2, 0; MSB = 2 * (1/4 + 0 + 1/4) / 2 = 1/2, MSW = 1/2 / 3 = 1/6, between = (1/2 - 1/6) / 2
    found = variance_components(gather_scores(np.array(list("aabbcc")), np.array([1, 1, 1, 0, 0, 0])))
    assert (found.between, found.within) == pytest.approx((1 / 6, 1 / 6))
    assert found.fraction_between == pytest.approx(0.5)
    assert not found.clipped


@pytest.mark.parametrize("unequal", [False, True])
def test_parts_are_unbiased(unequal):
    rng = np.random.default_rng(0)
    a, b = 0.115, 0.062  # a beta distribution with 85 % of the variance between
    mean = a / (a + b)
    between, whole = mean * (1 - mean) / (a + b + 1), mean * (1 - mean)
    parts = []
    for _ in range(300):
        samples = rng.integers(1, 8, 100) if unequal else np.full(100, 4)
        chance = np.repeat(rng.beta(a, b, 100), samples)
        parts.append(
            variance_components(gather_scores(np.repeat(np.arange(100), samples), rng.random(len(chance)) < chance))
        )
    for found, true in (
        ([p.unclipped_between for p in parts], between),
        ([p.within for p in parts], whole - between),
    ):
        assert np.mean(found) == pytest.approx(true, abs=4 * np.std(found) / np.sqrt(300))


def test_a_part_that_noise_takes_under_zero_is_clipped_and_says_so():
    found = variance_components(gather_scores(np.array(list("aabbcc")), np.array([1, 0, 0, 1, 1, 0])))
    assert (found.between, found.clipped) == (0, True)
    assert found.unclipped_between == pytest.approx(-0.25)


def test_one_sample_of_each_problem_cannot_be_split():
    single = gather_scores(np.arange(5), np.array([0, 1, 1, 0, 1]))
    for call in (lambda: variance_components(single), lambda: paired_variance(single, single)):
        with pytest.raises(ValueError, match="at least 2 samples"):
            call()
    with pytest.raises(ValueError, match="1 problem"):
        variance_components(gather_scores(np.array(["a", "a"]), np.array([0, 1])))


def draw(rng, studies, problems, samples, effect):
    """[studies, problems] mean differences, and the true parts."""
    first = rng.choice([0.2, 0.9], (studies, problems))
    second = first + effect + rng.choice([-0.1, 0.1], (studies, problems)) * (first == 0.2)
    scores = [rng.binomial(samples, chance) / samples for chance in (first, second)]
    within_run = (0.25 * sum((c + effect) * (1 - c - effect) for c in (0.1, 0.3))) + 0.5 * (0.9 + effect) * (
        0.1 - effect
    )
    return scores, PairedVariance(0.5 * 0.01, 0.5 * (0.16 + 0.09), within_run, 0.005, 0.35**2, 0.55)


def test_paired_parts_are_unbiased():
    rng = np.random.default_rng(1)
    found, ids = [], np.repeat(np.arange(400), 3)
    for _ in range(60):
        (first, second), true = draw(rng, 1, 400, 3, 0.05)
        arms = [gather_scores(ids, (np.arange(3) < np.rint(3 * arm[0])[:, None]).ravel()) for arm in (first, second)]
        found.append(paired_variance(*arms))
    for name in ("unclipped_interaction", "within_baseline", "within_run", "between"):
        values = [getattr(parts, name) for parts in found]
        assert np.mean(values) == pytest.approx(getattr(true, name), abs=4 * np.std(values) / np.sqrt(60)), name


def design(rng, studies, problems, samples, effect, mean=0.65, between=0.6, changed=0.1):
    """[studies, problems] mean differences: each wrong answer of the run turns right with the same chance."""
    size = 1 / between - 1
    first, other = rng.beta(mean * size, (1 - mean) * size, (2, studies, problems))
    second = np.where(rng.random((studies, problems)) < changed, other, first)
    second = 1 - (1 - second) * (1 - effect / (1 - mean))
    return (rng.binomial(samples, second) - rng.binomial(samples, first)) / samples


def rejected(difference, samples):
    if samples > 1:
        return ttest_1samp(difference, 0, axis=1).pvalue <= 0.05
    gained, lost = (difference > 0).sum(axis=1), (difference < 0).sum(axis=1)
    return np.minimum(2 * binom.cdf(np.minimum(gained, lost), gained + lost, 0.5), 1) <= 0.05


@pytest.mark.parametrize(("problems", "samples"), [(100, 1), (300, 1), (30, 16), (200, 4)])
def test_the_planned_effect_is_found_with_its_power(problems, samples):
    effect = planned_mde_pp(problems, samples, accuracy=0.65, icc=0.6, changed=0.1) / 100
    found = np.mean(rejected(design(np.random.default_rng(2), 4000, problems, samples, effect), samples))
    assert 0.75 <= found <= 0.85


def test_a_plan_that_mcnemar_decides_needs_more_than_the_t_test_says():
    deviation = np.sqrt(2 * 0.1 * 0.85 * 0.65 * 0.35 + 2 * 0.15 * 0.65 * 0.35)
    t_test = 100 * (1.960 + 0.842) * deviation / 10
    assert planned_mde_pp(100, 1, accuracy=0.65, icc=0.85, changed=0.1) > 1.3 * t_test
    assert planned_mde_pp(8, 1) is None or planned_mde_pp(8, 1) > 50


def test_a_plan_asks_for_less_the_more_is_sampled():
    effects = [planned_mde_pp(problems, samples) for problems, samples in ((50, 1), (200, 1), (200, 4), (800, 4))]
    assert effects == sorted(effects, reverse=True)
    with pytest.raises(ValueError, match="no comparison of 1 problems"):
        planned_mde_pp(1, 4)


def test_the_detectable_effect_is_the_one_seen_with_that_power():
    design = PairedDesign(300, 2, PairedVariance(0.02, 0.14, 0.14, 0.02, 0.1, 0.6))
    least = design.minimum_detectable_effect(power=0.9)
    assert design.power(least) == pytest.approx(0.9, abs=2e-3)
    without_effect = (1.960 + 1.282) * np.sqrt((0.02 + 0.28 / 2) / 300)
    assert without_effect < least < 1.05 * without_effect


def test_more_samples_help_until_the_interaction_is_left():
    parts = PairedVariance(0.02, 0.14, 0.14, 0.02, 0.1, 0.6)
    seen = [PairedDesign(300, samples, parts).minimum_detectable_effect() for samples in (1, 4, 1000)]
    assert seen[0] > seen[1] > seen[2] > 0.95 * (1.960 + 0.842) * np.sqrt(0.02 / 300)


def test_a_design_without_variance_is_refused():
    with pytest.raises(ValueError, match="all 0"):
        PairedDesign(10, 1, PairedVariance(0, 0, 0, -0.1, 0, 0.5)).power(0.1)
