"""What is said of an run is strict JSON whatever its samples are, adds up, and can be told in lines."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from ssdfast.evaluation.comparisons import compare_runs
from ssdfast.evaluation.format_results import format_results
from ssdfast.evaluation.runs import KnownSamplingParams, Run
from ssdfast.evaluation.samples import SCHEMA
from ssdfast.evaluation.stats.intervals import accuracy
from ssdfast.evaluation.stats.pass_at_k import mean_pass_at_k
from ssdfast.evaluation.stats.power import variance_components
from ssdfast.evaluation.summary import run_scores, summarize_run
from ssdfast.schemas import EvaluationResults

ROW = {
    "checkpoint": "a", "temperature": 0.7, "top_k": 20, "top_p": 0.95, "min_p": 0.0,
    "trace_id": "p#0", "problem_id": "p", "sample": 0, "source": "s", "difficulty": "1", "question": "?", "gold": "4",
    "grade": "correct", "score": 1.0, "answer": "4", "finish_reason": "stop",
    "boxed": True, "thinking": True, "think_closed": True, "length": 100, "length_in_tokens": True,
    "looped": False, "repetition": 0.25,
}  # fmt: skip
WRONG = {"grade": "incorrect", "score": 0.0, "answer": "5"}
NONE = {"grade": "no_answer", "score": 0.0, "answer": None, "boxed": False}
RUN = Run("a", KnownSamplingParams(0.7, 20, 0.95, 0.0))


def rows(*changes):
    return pa.Table.from_pylist([ROW | change for change in changes], schema=SCHEMA)


def grid(problems, samples, **columns):
    """A row for each sample of each problem, right by chance; columns: values to take in turn."""
    rng = np.random.default_rng(0)
    return rows(
        *(
            {"problem_id": f"p{n // samples}", "sample": n % samples}
            | ({} if rng.random() < 0.6 else WRONG)
            | {name: values[n % len(values)] for name, values in columns.items()}
            for n in range(problems * samples)
        )
    )


def summary(table, pass_ks=(), run=RUN):
    return summarize_run(run, table, pass_ks)


TABLES = {
    "one problem": grid(1, 4),
    "one sample": grid(1, 1),
    "one sample each": grid(5, 1),
    "all correct": rows(*({"problem_id": f"p{n % 3}", "sample": n} for n in range(6))),
    "none correct": rows(*({"problem_id": f"p{n % 3}", "sample": n} | NONE for n in range(6))),
    "none thinks": grid(4, 2, thinking=[False], think_closed=[False]),
    "unknown finish reasons": grid(4, 2, finish_reason=[None]),
    "words": grid(4, 2, length_in_tokens=[False]),
    "tokens or words": grid(4, 2, length_in_tokens=[True, False]),
    "nothing known": grid(4, 2, source=[None], difficulty=[None], temperature=[None], top_k=[None]),
    "uneven": grid(4, 3).slice(0, 10),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_summary_is_strict_json(name):
    found = summary(TABLES[name])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["samples"] == len(TABLES[name])


def test_what_is_unknown_is_null():
    assert summary(TABLES["none thinks"])["diagnostics"]["think_closed_rate"] is None
    assert summary(TABLES["unknown finish reasons"])["diagnostics"]["truncation_rate"] is None
    assert summary(TABLES["all correct"])["diagnostics"]["length"]["incorrect"] is None
    assert summary(TABLES["none correct"])["diagnostics"]["length"]["correct"] is None
    assert summary(TABLES["all correct"])["variance"] == {"between": 0, "within": 0, "fraction_between": None}
    assert summary(TABLES["one sample each"])["variance"] is summary(TABLES["one problem"])["variance"] is None
    one = summary(TABLES["one problem"])["accuracy"]
    assert (one["ci_low"], one["ci_high"], one["ci_method"]) == (None, None, "one problem")
    assert one["value"] == np.mean([v == "correct" for v in TABLES["one problem"]["grade"].to_pylist()])
    assert summary(TABLES["one sample"])["accuracy"]["ci_method"] == "wilson"
    for name, unit in (("words", "words"), ("tokens or words", "tokens or words"), ("uneven", "tokens")):
        assert summary(TABLES[name])["diagnostics"]["length"]["unit"] == unit


def test_a_run_goes_by_its_name_and_decoding():
    found = summary(TABLES["uneven"], run=Run("b", KnownSamplingParams(1.1, None, 0.9, 0.05)))
    assert (found["name"], found["checkpoint"]) == ("b T=1.1 p=0.9 min-p=0.05", "b")
    assert (found["temperature"], found["top_k"], found["top_p"], found["min_p"]) == (1.1, None, 0.9, 0.05)


def test_problems_weigh_the_same_however_many_samples_they_have():
    table = rows({}, {"sample": 1}, {"sample": 2}, {"problem_id": "q"} | WRONG, {"problem_id": "r"} | NONE)
    found = summary(table)
    assert found["accuracy"]["value"] == pytest.approx(1 / 3)
    assert found["diagnostics"]["answer_rate"]["value"] == pytest.approx(2 / 3)
    assert (found["problems"], found["samples"]) == (3, 5)
    assert found["grades"] == {"correct": 3, "no_answer": 1, "incorrect": 1}


def test_health_by_hand():
    table = rows(
        {"length": 10, "finish_reason": "stop", "repetition": 0.5, "looped": True},
        {"length": 20, "finish_reason": "length", "repetition": 0.1, "think_closed": False, "sample": 1} | NONE,
        {
            "length": 60,
            "finish_reason": None,
            "repetition": 0.0,
            "thinking": False,
            "think_closed": False,
            "problem_id": "q",
        },
        {"length": 30, "finish_reason": "stop", "repetition": 0.2, "problem_id": "q", "sample": 1} | WRONG,
    )
    diagnostics = summary(table)["diagnostics"]
    assert diagnostics["repetition"] == pytest.approx(0.2)
    assert (diagnostics["boxed_rate"], diagnostics["loop_rate"]) == (0.75, 0.25)
    assert diagnostics["think_closed_rate"] == pytest.approx(2 / 3)  # of the three that think
    assert diagnostics["truncation_rate"] == pytest.approx(1 / 3)  # of the three that say how they ended
    assert (
        diagnostics["length"]["all"]["mean"],
        diagnostics["length"]["all"]["p50"],
        diagnostics["length"]["all"]["max"],
    ) == (30, 25, 60)
    assert (diagnostics["length"]["correct"]["mean"], diagnostics["length"]["incorrect"]["mean"]) == (35, 25)


def test_figures_are_those_of_the_statistics():
    table = grid(30, 4)
    scores, found = run_scores(table), summary(table, (1, 4))
    for figure in ("value", "ci_low", "ci_high", "ci_level", "ci_method"):
        assert found["accuracy"][figure] == getattr(accuracy(scores), figure)
        assert found["pass_at_k"]["4"][figure] == getattr(mean_pass_at_k(scores, 4), figure)
    assert list(found["pass_at_k"]) == ["1", "4"]
    assert found["pass_at_k"]["1"]["value"] == pytest.approx(found["accuracy"]["value"])
    parts = variance_components(scores)
    assert found["variance"] == {
        "between": parts.between,
        "within": parts.within,
        "fraction_between": parts.between / (parts.between + parts.within),
    }


def test_pass_at_more_than_the_samples_is_refused_by_problem():
    with pytest.raises(ValueError, match=r"1 problems have fewer than 3 samples, the first 'p3' with 1"):
        summary(TABLES["uneven"], (1, 3))
    assert summary(TABLES["uneven"])["pass_at_k"] == {}


def test_pass_at_k_of_one_problem_has_no_interval():
    assert summary(TABLES["one problem"], (2,))["pass_at_k"]["2"]["ci_low"] is None


def test_columns_that_are_true_or_false_are_outcomes_too():
    table = rows({"looped": True}, {"sample": 1}, {"problem_id": "q", "looped": True})
    assert run_scores(table, "looped").mean_P.tolist() == [0.5, 1]


def test_difficulties_stand_in_order_as_numbers_then_as_text():
    table = grid(18, 1, difficulty=["hard", "10", "2", None, "1.5", "easy"])
    assert list(summary(table)["by_difficulty"]) == ["1.5", "2", "10", "", "easy", "hard"]


def test_parts_add_up_to_the_whole():
    table = grid(24, 2, source=["a", "a", None, None, "b", "b"], difficulty=["1", "1", "2", "2"])
    found = summary(table)
    for parts in (found["by_source"], found["by_difficulty"]):
        assert sum(part["samples"] for part in parts.values()) == found["samples"] == 48
        assert sum(part["problems"] for part in parts.values()) == found["problems"] == 24
        right = sum(part["accuracy"]["value"] * part["problems"] for part in parts.values())
        assert right / 24 == pytest.approx(found["accuracy"]["value"])
        counts = [part["grades"].get("correct", 0) for part in parts.values()]
        assert sum(counts) == found["grades"]["correct"] > max(counts)
    assert set(found["by_source"]) == {"a", "", "b"}


# Told


def results(*runs, **more):
    """As results.json has them."""
    return {
        "problems": 6,
        "planned_problems": 6,
        "bad_golds": [],
        "runs": [summarize_run(run, table, (1,)) for run, table in runs],
        "selection": None,
        "comparisons": [],
        "sequential": [],
        "prompt_mismatches": {},
    } | more


def as_text(values):
    return format_results(EvaluationResults.model_validate(values))


def swept():
    rng, runs = np.random.default_rng(1), {}
    for label, temperature in (("base", 0.6), ("base", 1.2), ("new", 0.6), ("new", 1.2)):
        changes = ({} if rng.random() < 0.5 else WRONG for _ in range(80))
        runs[Run(label, KnownSamplingParams(temperature))] = rows(
            *(change | {"problem_id": f"p{n // 2}", "sample": n % 2} for n, change in enumerate(changes))
        )
    scores = {run: run_scores(table) for run, table in runs.items()}
    return results(*runs.items(), **compare_runs(scores, "base", {f"p{n}": "" for n in range(40)}, 0))


def test_every_run_has_a_line_with_its_figures():
    lines = as_text(swept()).split("\n")
    assert lines[0] == "6 problems, 320 samples"
    heads = ["checkpoint  T", "accuracy", "pass@1", "answered", "think closed", "truncated", "length p50"]
    assert all(head in lines[2] for head in heads)
    found = swept()
    for line, run in zip(lines[3:7], found["runs"], strict=True):
        interval = run["accuracy"]
        assert line.split()[:3] == [run["checkpoint"], f"{run['temperature']}", f"{100 * interval['value']:.1f}"]
        assert f"[{100 * interval['ci_low']:.1f}, {100 * interval['ci_high']:.1f}]" in line
    note = "answered: completions that state an answer; think closed: of the completions that think; length in tokens"
    assert lines[7] == note


def test_the_choice_is_told_and_its_comparison_stands_before_the_rest_of_the_sweep():
    found = swept()
    lines = as_text(found).split("\n")
    of_base, of_new = (found["selection"]["best_runs"][label]["run"] for label in ("base", "new"))
    assert f"best runs, selected on 20 problems and compared on the other 20: {of_base}, {of_new}" in lines
    first, second = (line for line in lines if f" against {of_base}: " in line)
    assert first.startswith(f"{of_new} against {of_base}: ")
    assert second.startswith("  also: new T=")
    (best,) = (comparison for comparison in found["comparisons"] if comparison["is_best_run"])
    value, low, high = (f"{best['difference_pp'][end]:.1f}" for end in ("value", "ci_low", "ci_high"))
    assert f"{value} [{low}, {high}] percentage points".replace("-", "−") in first
    assert f"p = {best['p_value']:.2g}, by Holm over 2 p = {best['p_value_holm']:.2g} (sign flips by problem, " in first
    mde = f"minimum detectable effect at a power of 80 %: {best['mde_pp']:.1f} percentage points"
    assert f" of 20 problems discordant); {mde}" in first


@pytest.mark.parametrize("name", TABLES)
def test_all_that_can_be_summed_up_can_be_told(name):
    lines = as_text(results((RUN, TABLES[name])) if "one" not in name else bare(name)).split("\n")
    assert len(lines) == 5
    assert lines[3].startswith("a  ")
    assert "None" not in lines[3]
    assert ("  –  " in lines[3]) == (name in ("none thinks", "unknown finish reasons"))


def bare(name):
    return results() | {"runs": [summary(TABLES[name])]}


def test_uneven_runs_tell_how_many_problems_each_has_and_what_nobody_knows_is_a_dash():
    found = results((RUN, TABLES["uneven"]), (Run("b", KnownSamplingParams()), grid(3, 1)))
    head, first, second = as_text(found).split("\n")[2:5]
    assert head.split()[:6] == ["checkpoint", "T", "k", "p", "min-p", "problems"]
    assert first.split()[:6] == ["a", "0.7", "20", "0.95", "0", "4"]
    assert second.split()[:6] == ["b", "-", "-", "-", "-", "3"]


def test_other_prompts_and_an_unknown_power_are_shown():
    found = swept()
    found["prompt_mismatches"] = {"new T=0.6": 1200}
    found["comparisons"][0]["mde_pp"] = None
    text = as_text(found)
    assert "new T=0.6 has other prompts than the first run for 1,200 problems" in text
    assert text.count("power of 80 %: unknown") == 1


@pytest.mark.parametrize(
    ("decision", "wording"),
    [
        ("baseline_better", "base is better"),
        ("run_better", "new is better"),
        ("equivalent", "no difference within 2.5 percentage points"),
        ("undecided", "undecided, as the rest would hardly decide it,"),
    ],
)
def test_a_sequence_tells_its_last_decision(decision, wording):
    def look(decision, problems, value, low, high):
        difference = {"value": value, "ci_low": low, "ci_high": high}
        stopped = decision != "undecided"
        return {"decision": decision, "problems": problems, "difference_pp": difference, "stopped": stopped}

    early, last = look("undecided", 10, 0.0, -9.0, 9.0), look(decision, 1500, 1.26, -0.5, 3.0)
    sequence = {
        "baseline": "base", "run": "new", "equivalence_margin_pp": 2.5, "alpha": 0.025,
        "max_problems": 2000, "max_looks": 5,
    }  # fmt: skip
    text = as_text(results((RUN, TABLES["uneven"].slice(0, 6)), sequential=[sequence | {"looks": [early, last]}]))
    assert text.split("\n")[-2] == (
        f"new against base: {wording} after 1,500 of 2,000 problems, +1.3 [−0.5, 3.0] percentage points"
        " (group sequential, look 2 of 5, alpha 0.025)"
    )
