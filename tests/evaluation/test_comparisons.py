"""Every checkpoint is compared with the baseline at its best, on problems that chose nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdfast.evaluation import comparisons
from ssdfast.evaluation.comparisons import compared
from ssdfast.evaluation.runs import Arm, Setting
from ssdfast.evaluation.stats.paired_tests import Difference, compare
from ssdfast.evaluation.stats.power import PairedDesign, paired_variance
from ssdfast.evaluation.stats.scores import Outcomes, gather
from ssdfast.statistics import holm


def arms(label, *temperatures):
    return [Arm(label, Setting(temperature)) for temperature in temperatures]


def names(count):
    return [f"p{number:03}" for number in range(count)]


def drawn(rng, chances, problems=60, samples=1):
    """Outcomes of arms that are right with these chances."""
    ids = np.repeat(names(problems), samples)
    return {arm: gather(ids, rng.random(len(ids)) < chance) for arm, chance in chances.items()}


def one_stratum(count):
    return dict.fromkeys(names(count), "all")


def halves(outcomes, baseline="base", strata=None, seed=0):
    """Which problems choose and which report, as `compared` asks for them."""
    ids = next(iter(outcomes.values())).problem_ids
    return comparisons._halves(ids, strata or dict.fromkeys(ids, "all"), seed)


SWEEP = {
    **dict(zip(arms("base", 0.6, 0.8, 1.0), (0.2, 0.6, 0.4), strict=True)),
    **dict(zip(arms("one", 0.6, 1.2), (0.5, 0.9), strict=True)),
    **dict(zip(arms("two", 0.7), (0.3,), strict=True)),
}


@pytest.fixture(scope="module")
def sweep():
    outcomes = drawn(np.random.default_rng(0), SWEEP, problems=201, samples=2)
    return outcomes, compared(outcomes, "base", one_stratum(201), seed=3)


def test_every_arm_of_every_other_checkpoint_meets_the_baseline_at_its_best(sweep):
    _, found = sweep
    assert [(one["baseline"], one["arm"], one["chosen"]) for one in found["comparisons"]] == [
        ("base T=0.8", "one T=0.6", False),
        ("base T=0.8", "one T=1.2", True),
        ("base T=0.8", "two T=0.7", True),
    ]
    assert {label: chosen["arm"] for label, chosen in found["selection"]["chosen"].items()} == {
        "base": "base T=0.8",
        "one": "one T=1.2",
        "two": "two T=0.7",
    }


def test_figures_are_those_of_the_reporting_half_and_choices_of_the_other(sweep):
    outcomes, found = sweep
    choosing, reporting = halves(outcomes, seed=3)
    assert (found["selection"]["problems"], found["selection"]["reported_on"]) == (100, 101)
    best = Arm("base", Setting(0.8))
    for one, arm in zip(found["comparisons"], [*arms("one", 0.6, 1.2), *arms("two", 0.7)], strict=True):
        first, second = outcomes[best].only(reporting), outcomes[arm].only(reporting)
        alone = compare(first, second, seed=3)
        for figure in ("points", "low", "high", "p", "test", "problems", "differing", "detectable"):
            assert one[figure] == getattr(alone, figure), figure
        parts = paired_variance(first, second)
        assert one["design"]["interaction"] == parts.interaction
        assert one["design"]["within_baseline"] == parts.within_first
        assert one["design"]["within_arm"] == parts.within_second
    for label, arm in (("base", best), ("one", Arm("one", Setting(1.2)))):
        accuracy = found["selection"]["chosen"][label]["accuracy_where_chosen"]
        assert accuracy == pytest.approx(outcomes[arm].only(choosing).mean_P.mean())


def test_p_values_are_corrected_over_all_comparisons_together(sweep):
    _, found = sweep
    p = [one["p"] for one in found["comparisons"]]
    assert [one["p_holm"] for one in found["comparisons"]] == pytest.approx(holm(p))
    assert sum(one["p_holm"] > one["p"] for one in found["comparisons"]) >= 2


def test_the_best_is_chosen_by_the_choosing_half_even_where_the_other_disagrees():
    ids = names(40)
    choosing, _ = comparisons._halves(ids, one_stratum(40), 0)
    here = np.isin(ids, choosing)
    luring, steady = arms("base", 0.6, 0.8)
    outcomes = {
        luring: gather(np.array(ids), ~here),  # right on the reporting half alone
        steady: gather(np.array(ids), here),
        **dict.fromkeys(arms("new", 1.0), gather(np.array(ids), np.ones(40))),
    }
    (one,) = compared(outcomes, "base", one_stratum(40), 0)["comparisons"]
    assert (one["baseline"], one["points"]) == (str(steady), 100)


def test_of_equally_good_settings_the_first_is_taken():
    outcomes = dict.fromkeys(arms("base", 0.9, 0.6, 1.2) + arms("new", 1.0), gather(np.array(names(8)), np.ones(8)))
    assert compared(outcomes, "base", one_stratum(8), 0)["comparisons"][0]["baseline"] == "base T=0.9"


def test_a_single_decoding_uses_all_problems_and_chooses_nothing():
    outcomes = drawn(np.random.default_rng(1), dict.fromkeys(arms("base", 0.6) + arms("new", 1.2), 0.5), problems=31)
    found = compared(outcomes, "base", {}, 0)
    assert found["selection"] is None
    (one,) = found["comparisons"]
    assert (one["problems"], one["chosen"]) == (31, True)
    assert one["points"] == compare(*outcomes.values()).points


def test_a_baseline_need_not_be_first_and_may_be_alone():
    outcomes = drawn(np.random.default_rng(2), dict.fromkeys(arms("new", 0.6) + arms("base", 0.6), 0.5))
    (one,) = compared(outcomes, "base", {}, 0)["comparisons"]
    assert (one["baseline"], one["arm"]) == ("base T=0.6", "new T=0.6")
    alone = drawn(np.random.default_rng(2), dict.fromkeys(arms("base", 0.6, 0.8), 0.5))
    assert compared(alone, "base", one_stratum(60), 0) == {"selection": None, "comparisons": []}


@settings(deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=4, max_size=40), st.integers(0, 3), st.randoms())
def test_halves_part_all_problems_in_proportion_whatever_their_order(of, seed, random):
    ids = names(len(of))
    strata = dict(zip(ids, of, strict=True))
    choosing, reporting = comparisons._halves(ids, strata, seed)
    assert sorted((*choosing, *reporting)) == ids
    assert len(choosing) == len(ids) // 2
    for stratum in set(of):
        theirs = sum(strata[name] == stratum for name in choosing)
        assert abs(theirs - len(choosing) * of.count(stratum) / len(of)) < 1
    shuffled = random.sample(ids, len(ids))
    again = comparisons._halves(shuffled, strata, seed)
    assert tuple(map(set, again)) == (set(choosing), set(reporting))


def test_another_seed_makes_other_halves():
    ours, theirs = (comparisons._halves(names(40), one_stratum(40), seed) for seed in (0, 1))
    assert set(ours[0]) != set(theirs[0])


def test_too_few_problems_to_choose_by_are_refused():
    def outcomes(problems):
        return drawn(np.random.default_rng(0), dict.fromkeys(arms("base", 0.6, 0.8) + arms("new", 1.0), 0.5), problems)

    with pytest.raises(ValueError, match="of 3 problems one half cannot choose the decoding and the other report"):
        compared(outcomes(3), "base", one_stratum(3), 0)
    assert compared(outcomes(4), "base", one_stratum(4), 0)["selection"]["reported_on"] == 2


def test_arms_over_other_problems_are_refused_and_both_named():
    ids = np.array(names(6))
    outcomes = {
        **dict.fromkeys(arms("base", 0.6) + arms("new", 0.6), gather(ids, np.ones(6))),
        **dict.fromkeys(arms("new", 1.2), gather(np.array(["p000", "p001", "x"]), np.ones(3))),
    }
    with pytest.raises(ValueError, match=r"^base T=0.6 and new T=1.2: .* 4 only in the first \(p002, p003, p004, \."):
        compared(outcomes, "base", one_stratum(6), 0)


@pytest.fixture
def quick(monkeypatch):
    """Comparisons of the difference alone, for simulations: without interval, power and correction."""

    def bare(first, second, seed):
        points = 100 * float((second.mean_P - first.mean_P).mean())
        return Difference(points, points, points, 0.95, "", 0.5, "", len(first.problem_ids), 0, None)

    monkeypatch.setattr(comparisons, "compare", bare)
    monkeypatch.setattr(comparisons, "holm", list)


def chosen_difference(found):
    return next(one["points"] for one in found["comparisons"] if one["chosen"])


@pytest.mark.parametrize("of_baseline", [1, 6])
def test_where_no_setting_is_better_the_chosen_ones_differ_by_nothing_on_average(quick, of_baseline):
    """And choosing on the problems that report makes six settings look better than one."""
    rng = np.random.default_rng(4)
    chances = dict.fromkeys([*arms("base", *range(1, of_baseline + 1)), *arms("new", *range(1, 7))], 0.5)
    halved, same = [], []
    for seed in range(200):
        outcomes = drawn(rng, chances, problems=40)
        halved.append(chosen_difference(compared(outcomes, "base", one_stratum(40), seed)))
        best = {
            label: max(one.mean_P.mean() for arm, one in outcomes.items() if arm.checkpoint == label)
            for label in ("base", "new")
        }
        same.append(100 * (best["new"] - best["base"]))

    def noise(points):
        return np.std(points) / np.sqrt(200)

    assert abs(np.mean(halved)) < 4 * noise(halved)
    if of_baseline == 1:
        assert np.mean(same) > 8 * noise(same)


def test_a_tuned_baseline_is_not_beaten_by_its_own_best_setting(quick):
    """The same model under another name gains over an untuned baseline, and nothing over a tuned one."""
    rng, differences = np.random.default_rng(5), []
    for seed in range(50):
        chances = dict(zip(arms("base", 0.6, 1.2), (0.2, 0.8), strict=True)) | dict.fromkeys(arms("new", 1.2), 0.8)
        found = compared(drawn(rng, chances), "base", one_stratum(60), seed)
        differences.append(chosen_difference(found))
    assert abs(np.mean(differences)) < 4 * np.std(differences) / np.sqrt(50)


# What more would show


def pair(problems, samples=4, chance=0.5):
    rng = np.random.default_rng(6)
    return list(drawn(rng, dict.fromkeys(arms("base", 0.6) + arms("new", 0.6), chance), problems, samples).values())


def test_a_design_tells_what_twice_the_samples_would_show():
    first, second = pair(400)
    found, parts = comparisons._design(first, second), paired_variance(first, second)
    assert found["interaction"] == parts.interaction
    now = 100 * PairedDesign(400, 4, parts).detectable_effect()
    assert found["detectable_with_twice_the_samples"] == pytest.approx(
        100 * PairedDesign(400, 8, parts).detectable_effect()
    )
    assert now > found["detectable_with_twice_the_samples"] > now / 1.42


def test_arms_whose_samples_are_alike_by_their_seeds_tell_nothing_of_more_samples():
    first, _ = pair(50)
    found = comparisons._design(first, first)
    assert found["interaction"] == 0
    assert found["detectable_with_twice_the_samples"] is None


def test_a_design_has_as_many_samples_as_the_arm_with_fewer():
    first, four = pair(400)
    second = Outcomes(four.problem_ids, np.full(400, 2), four.score_N.reshape(400, 4)[:, :2].ravel())
    planned = 100 * PairedDesign(400, 4, paired_variance(first, second)).detectable_effect()
    assert comparisons._design(first, second)["detectable_with_twice_the_samples"] == pytest.approx(planned)


@pytest.mark.parametrize("outcomes", [pair(50, samples=1), pair(50, chance=1.0), [pair(50)[0], pair(50, samples=1)[0]]])
def test_without_a_second_sample_or_any_variance_there_is_no_design(outcomes):
    assert comparisons._design(*outcomes) is None


def test_comparisons_are_strict_json(sweep):
    _, found = sweep
    assert json.loads(json.dumps(found, allow_nan=False)) == found
