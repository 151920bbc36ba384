"""Power has the values of enumeration and of statsmodels; an effect turns wrong answers right."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multinomial

from ssdfast.evaluation.stats.detectable import (
    DifferenceVariance,
    discordant_at,
    discordant_without_effect,
    mcnemar_power,
    smallest_detectable,
    t_test_power,
)
from ssdfast.evaluation.stats.paired_tests import mcnemar


@pytest.mark.parametrize(("effect", "discordant"), [(0.0, 0.4), (0.2, 0.3), (0.35, 0.35)])
def test_mcnemars_power_is_that_of_every_table_enumerated(effect, discordant):
    problems, gain, lose = 14, (discordant + effect) / 2, (discordant - effect) / 2
    power = sum(
        multinomial.pmf([gained, lost, problems - gained - lost], problems, [gain, lose, 1 - gain - lose])
        for gained, lost in product(range(problems + 1), repeat=2)
        if gained + lost <= problems and mcnemar(gained, lost) <= 0.05
    )
    assert mcnemar_power(effect, discordant, problems, 0.05) == pytest.approx(power, abs=1e-7)


def test_without_an_effect_mcnemar_rejects_at_most_alpha():
    for problems in (20, 100, 1000):
        assert 0 < mcnemar_power(0.0, 0.2, problems, 0.05) <= 0.05


@pytest.mark.parametrize("problems", [2, 5, 30, 400])
def test_the_t_tests_power_is_that_of_statsmodels(problems):
    power = pytest.importorskip("statsmodels.stats.power").TTestPower().power
    difference = DifferenceVariance(0.04, 0.1, 0.5, 4)
    for shift in (0.5, 1.5, 3.0):  # in standard errors without an effect
        effect = shift * 0.2 / np.sqrt(problems)
        expected = power(effect / np.sqrt(difference.at(effect)), problems, 0.05)
        assert t_test_power(effect, difference, problems, 0.05) == pytest.approx(expected, abs=1e-4)


def test_the_variance_at_an_effect_is_that_of_answers_turned_right():
    rng = np.random.default_rng(0)
    first, second = rng.binomial(4, rng.beta(2, 1, 200_000), (2, 200_000)) / 4
    moments = DifferenceVariance(np.var(second - first), np.var(first), 2 / 3, 4)
    for effect, wrong in ((0.1, True), (-0.2, False)):
        chance = abs(effect) / (1 / 3 if wrong else 2 / 3)
        turned = rng.binomial(np.rint(4 * (1 - second if wrong else second)).astype(int), chance) / 4
        difference = second + (turned if wrong else -turned) - first
        assert difference.mean() == pytest.approx(effect, abs=0.005)
        assert moments.at(effect) == pytest.approx(difference.var(), rel=0.02)
        observed = DifferenceVariance(moments.at(effect), moments.mean_variance, 2 / 3, 4)
        assert observed.without(effect).variance == pytest.approx(moments.variance)


def test_an_effect_leaves_some_of_the_losses():
    # 60 % right, 20 % of problems discordant: 10 lost and 10 gained of 100, and 30 wrong in both
    assert discordant_at(0.0, 0.2, 0.6) == pytest.approx(0.2)
    assert discordant_at(0.2, 0.2, 0.6) == pytest.approx(0.25 + 0.05)  # half of the wrong: 10 + 15 gained, 5 lost
    assert discordant_at(0.4, 0.2, 0.6) == pytest.approx(0.4)  # nothing is wrong any more
    with pytest.raises(ValueError, match="no room"):
        discordant_at(0.5, 0.2, 0.6)


@settings(deadline=None)
@given(st.floats(0, 0.4), st.floats(0, 0.6), st.integers(50, 5000))
def test_discordance_without_an_effect_is_that_which_the_effect_made(discordant, effect, problems):
    accuracy = 0.4
    discordant = discordant_at(0.0, discordant, accuracy)
    expected = discordant_at(effect, discordant, accuracy)
    assert abs(effect) <= expected + 1e-9 <= 1 + 2e-9
    gained, lost = round(problems * (expected + effect) / 2), round(problems * (expected - effect) / 2)
    found = discordant_without_effect(gained, lost, problems, accuracy)
    assert 0 <= found <= expected + 1 / problems
    if effect < 0.5 and problems > 4000:
        assert found == pytest.approx(discordant, abs=0.06)


def test_where_an_accuracy_leaves_no_room_the_smallest_loss_is_meant():
    def power_at(effect):
        return mcnemar_power(effect, discordant_at(effect, 0.02, 0.98), 100, 0.05)

    found = smallest_detectable(power_at, 0.98, 0.8)
    assert 0.05 < found < 0.2
    assert power_at(-found) >= 0.8 > power_at(-found + 1e-4)
    assert smallest_detectable(lambda effect: 0.5, 0.98, 0.8) is None
