"""Every checkpoint is compared with the baseline at its best, on problems that chose nothing."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdfast.evaluation import comparisons
from ssdfast.evaluation.comparisons import compare_runs
from ssdfast.evaluation.runs import KnownSamplingParams, Run
from ssdfast.evaluation.stats.intervals import Interval
from ssdfast.evaluation.stats.paired_tests import PairedComparison, compare
from ssdfast.evaluation.stats.power import PairedDesign, paired_variance
from ssdfast.evaluation.stats.scores import Scores, gather_scores
from ssdfast.statistics import holm


def runs(label, *temperatures):
    return [Run(label, KnownSamplingParams(temperature)) for temperature in temperatures]


def names(count):
    return [f"p{number:03}" for number in range(count)]


def drawn(rng, chances, problems=60, samples=1):
    """Scores of runs that are right with these chances."""
    ids = np.repeat(names(problems), samples)
    return {run: gather_scores(ids, rng.random(len(ids)) < chance) for run, chance in chances.items()}


def one_stratum(count):
    return dict.fromkeys(names(count), "all")


def halves(scores, baseline="base", strata=None, seed=0):
    """Which problems choose and which report, as `compare_runs` asks for them."""
    ids = next(iter(scores.values())).problem_ids
    return comparisons._halves(ids, strata or dict.fromkeys(ids, "all"), seed)


SWEEP = {
    **dict(zip(runs("base", 0.6, 0.8, 1.0), (0.2, 0.6, 0.4), strict=True)),
    **dict(zip(runs("one", 0.6, 1.2), (0.5, 0.9), strict=True)),
    **dict(zip(runs("two", 0.7), (0.3,), strict=True)),
}


@pytest.fixture(scope="module")
def sweep():
    scores = drawn(np.random.default_rng(0), SWEEP, problems=201, samples=2)
    return scores, compare_runs(scores, "base", one_stratum(201), seed=3)


def test_every_arm_of_every_other_checkpoint_meets_the_baseline_at_its_best(sweep):
    _, found = sweep
    assert [(one["baseline"], one["run"], one["is_best_run"]) for one in found["comparisons"]] == [
        ("base T=0.8", "one T=0.6", False),
        ("base T=0.8", "one T=1.2", True),
        ("base T=0.8", "two T=0.7", True),
    ]
    assert {label: chosen["run"] for label, chosen in found["selection"]["best_runs"].items()} == {
        "base": "base T=0.8",
        "one": "one T=1.2",
        "two": "two T=0.7",
    }


def test_figures_are_those_of_the_reporting_half_and_choices_of_the_other(sweep):
    scores, found = sweep
    choosing, reporting = halves(scores, seed=3)
    assert (found["selection"]["selection_problems"], found["selection"]["reporting_problems"]) == (100, 101)
    best = Run("base", KnownSamplingParams(0.8))
    for one, run in zip(found["comparisons"], [*runs("one", 0.6, 1.2), *runs("two", 0.7)], strict=True):
        first, second = scores[best].select(reporting), scores[run].select(reporting)
        alone = compare(first, second, seed=3)
        assert one["difference_pp"] == asdict(alone.difference_pp)
        for figure in ("p_value", "test", "problems", "num_discordant", "mde_pp"):
            assert one[figure] == getattr(alone, figure), figure
        parts = paired_variance(first, second)
        assert one["design"]["interaction"] == parts.interaction
        assert one["design"]["within_baseline"] == parts.within_baseline
        assert one["design"]["within_run"] == parts.within_run
    for label, run in (("base", best), ("one", Run("one", KnownSamplingParams(1.2)))):
        accuracy = found["selection"]["best_runs"][label]["selection_accuracy"]
        assert accuracy == pytest.approx(scores[run].select(choosing).mean_P.mean())


def test_p_values_are_corrected_over_all_comparisons_together(sweep):
    _, found = sweep
    p = [one["p_value"] for one in found["comparisons"]]
    assert [one["p_value_holm"] for one in found["comparisons"]] == pytest.approx(holm(p))
    assert sum(one["p_value_holm"] > one["p_value"] for one in found["comparisons"]) >= 2


def test_the_best_is_chosen_by_the_choosing_half_even_where_the_other_disagrees():
    ids = names(40)
    choosing, _ = comparisons._halves(ids, one_stratum(40), 0)
    here = np.isin(ids, choosing)
    luring, steady = runs("base", 0.6, 0.8)
    scores = {
        luring: gather_scores(np.array(ids), ~here),  # right on the reporting half alone
        steady: gather_scores(np.array(ids), here),
        **dict.fromkeys(runs("new", 1.0), gather_scores(np.array(ids), np.ones(40))),
    }
    (one,) = compare_runs(scores, "base", one_stratum(40), 0)["comparisons"]
    assert (one["baseline"], one["difference_pp"]["value"]) == (str(steady), 100)


def test_of_equally_good_settings_the_first_is_taken():
    scores = dict.fromkeys(
        runs("base", 0.9, 0.6, 1.2) + runs("new", 1.0), gather_scores(np.array(names(8)), np.ones(8))
    )
    assert compare_runs(scores, "base", one_stratum(8), 0)["comparisons"][0]["baseline"] == "base T=0.9"


def test_a_single_decoding_uses_all_problems_and_chooses_nothing():
    scores = drawn(np.random.default_rng(1), dict.fromkeys(runs("base", 0.6) + runs("new", 1.2), 0.5), problems=31)
    found = compare_runs(scores, "base", {}, 0)
    assert found["selection"] is None
    (one,) = found["comparisons"]
    assert (one["problems"], one["is_best_run"]) == (31, True)
    assert one["difference_pp"]["value"] == compare(*scores.values()).difference_pp.value


def test_a_baseline_need_not_be_first_and_may_be_alone():
    scores = drawn(np.random.default_rng(2), dict.fromkeys(runs("new", 0.6) + runs("base", 0.6), 0.5))
    (one,) = compare_runs(scores, "base", {}, 0)["comparisons"]
    assert (one["baseline"], one["run"]) == ("base T=0.6", "new T=0.6")
    alone = drawn(np.random.default_rng(2), dict.fromkeys(runs("base", 0.6, 0.8), 0.5))
    assert compare_runs(alone, "base", one_stratum(60), 0) == {"selection": None, "comparisons": []}


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
    def scores(problems):
        return drawn(np.random.default_rng(0), dict.fromkeys(runs("base", 0.6, 0.8) + runs("new", 1.0), 0.5), problems)

    with pytest.raises(
        ValueError,
        match="3 problems are too few for one half to select the sampling parameters and the other to report",
    ):
        compare_runs(scores(3), "base", one_stratum(3), 0)
    assert compare_runs(scores(4), "base", one_stratum(4), 0)["selection"]["reporting_problems"] == 2


def test_arms_over_other_problems_are_refused_and_both_named():
    ids = np.array(names(6))
    scores = {
        **dict.fromkeys(runs("base", 0.6) + runs("new", 0.6), gather_scores(ids, np.ones(6))),
        **dict.fromkeys(runs("new", 1.2), gather_scores(np.array(["p000", "p001", "x"]), np.ones(3))),
    }
    message = r"^base T=0.6 and new T=1.2: .* 4 only in the first \(p002, p003, p004 and 1 more"
    with pytest.raises(ValueError, match=message):
        compare_runs(scores, "base", one_stratum(6), 0)


@pytest.fixture
def quick(monkeypatch):
    """Comparisons of the difference alone, for simulations: without interval, power and correction."""

    def bare(first, second, seed):
        points = 100 * float((second.mean_P - first.mean_P).mean())
        difference = Interval(points, points, points, 0.95, "")
        return PairedComparison(difference, 0.5, "", len(first.problem_ids), 0, None)

    monkeypatch.setattr(comparisons, "compare", bare)
    monkeypatch.setattr(comparisons, "holm", list)


def chosen_difference(found):
    return next(one["difference_pp"]["value"] for one in found["comparisons"] if one["is_best_run"])


@pytest.mark.parametrize("of_baseline", [1, 6])
def test_where_no_setting_is_better_the_chosen_ones_differ_by_nothing_on_average(quick, of_baseline):
    """And choosing on the problems that report makes six settings look better than one."""
    rng = np.random.default_rng(4)
    chances = dict.fromkeys([*runs("base", *range(1, of_baseline + 1)), *runs("new", *range(1, 7))], 0.5)
    halved, same = [], []
    for seed in range(200):
        scores = drawn(rng, chances, problems=40)
        halved.append(chosen_difference(compare_runs(scores, "base", one_stratum(40), seed)))
        best = {
            label: max(one.mean_P.mean() for run, one in scores.items() if run.checkpoint == label)
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
        chances = dict(zip(runs("base", 0.6, 1.2), (0.2, 0.8), strict=True)) | dict.fromkeys(runs("new", 1.2), 0.8)
        found = compare_runs(drawn(rng, chances), "base", one_stratum(60), seed)
        differences.append(chosen_difference(found))
    assert abs(np.mean(differences)) < 4 * np.std(differences) / np.sqrt(50)


# What more would show


def pair(problems, samples=4, chance=0.5):
    rng = np.random.default_rng(6)
    return list(drawn(rng, dict.fromkeys(runs("base", 0.6) + runs("new", 0.6), chance), problems, samples).values())


def test_a_design_tells_what_twice_the_samples_would_show():
    first, second = pair(400)
    found, parts = comparisons._design(first, second), paired_variance(first, second)
    assert found["interaction"] == parts.interaction
    now = 100 * PairedDesign(400, 4, parts).minimum_detectable_effect()
    assert found["mde_pp_with_twice_the_samples"] == pytest.approx(
        100 * PairedDesign(400, 8, parts).minimum_detectable_effect()
    )
    assert now > found["mde_pp_with_twice_the_samples"] > now / 1.42


def test_arms_whose_samples_are_alike_by_their_seeds_tell_nothing_of_more_samples():
    first, _ = pair(50)
    found = comparisons._design(first, first)
    assert found["interaction"] == 0
    assert found["mde_pp_with_twice_the_samples"] is None


def test_a_design_has_as_many_samples_as_the_arm_with_fewer():
    first, four = pair(400)
    second = Scores(four.problem_ids, np.full(400, 2), four.score_N.reshape(400, 4)[:, :2].ravel())
    planned = 100 * PairedDesign(400, 4, paired_variance(first, second)).minimum_detectable_effect()
    assert comparisons._design(first, second)["mde_pp_with_twice_the_samples"] == pytest.approx(planned)


@pytest.mark.parametrize("scores", [pair(50, samples=1), pair(50, chance=1.0), [pair(50)[0], pair(50, samples=1)[0]]])
def test_without_a_second_sample_or_any_variance_there_is_no_design(scores):
    assert comparisons._design(*scores) is None


def test_comparisons_are_strict_json(sweep):
    _, found = sweep
    assert json.loads(json.dumps(found, allow_nan=False)) == found
