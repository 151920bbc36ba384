"""What is said of an arm is strict JSON whatever its samples are, adds up, and can be told in lines."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from ssdfast.evaluation.comparisons import compared
from ssdfast.evaluation.format_results import told
from ssdfast.evaluation.runs import Arm, Setting
from ssdfast.evaluation.samples import SCHEMA
from ssdfast.evaluation.stats.intervals import accuracy
from ssdfast.evaluation.stats.pass_at_k import pass_at
from ssdfast.evaluation.stats.power import split_variance
from ssdfast.evaluation.summary import outcomes_of, summary_of

ROW = {
    "checkpoint": "a", "temperature": 0.7, "top_k": 20, "top_p": 0.95, "min_p": 0.0,
    "problem_id": "p", "sample": 0, "source": "s", "difficulty": "1",
    "verdict": "correct", "score": 1.0, "extracted": "4", "finish_reason": "stop",
    "boxed": True, "thinks": True, "closed": True, "length": 100, "in_tokens": True,
    "looped": False, "repetition": 0.25,
}  # fmt: skip
WRONG = {"verdict": "wrong", "score": 0.0, "extracted": "5"}
NONE = {"verdict": "no_answer", "score": 0.0, "extracted": None, "boxed": False}
ARM = Arm("a", Setting(0.7, 20, 0.95, 0.0))


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


def summary(table, pass_ks=(), arm=ARM):
    return summary_of(arm, table, pass_ks, seed=0)


TABLES = {
    "one problem": grid(1, 4),
    "one sample": grid(1, 1),
    "one sample each": grid(5, 1),
    "all correct": rows(*({"problem_id": f"p{n % 3}", "sample": n} for n in range(6))),
    "none correct": rows(*({"problem_id": f"p{n % 3}", "sample": n} | NONE for n in range(6))),
    "none thinks": grid(4, 2, thinks=[False], closed=[False]),
    "unknown finish reasons": grid(4, 2, finish_reason=[None]),
    "words": grid(4, 2, in_tokens=[False]),
    "tokens or words": grid(4, 2, in_tokens=[True, False]),
    "nothing known": grid(4, 2, source=[None], difficulty=[None], temperature=[None], top_k=[None]),
    "uneven": grid(4, 3).slice(0, 10),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_summary_is_strict_json(name):
    found = summary(TABLES[name])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["samples"] == len(TABLES[name])


def test_what_is_unknown_is_null():
    assert summary(TABLES["none thinks"])["health"]["think_closed"] is None
    assert summary(TABLES["unknown finish reasons"])["health"]["length_stops"] is None
    assert summary(TABLES["all correct"])["health"]["lengths_other"] is None
    assert summary(TABLES["none correct"])["health"]["lengths_correct"] is None
    assert summary(TABLES["all correct"])["variance"] == {"between": 0, "within": 0, "share_between": None}
    assert summary(TABLES["one sample each"])["variance"] is summary(TABLES["one problem"])["variance"] is None
    one = summary(TABLES["one problem"])["accuracy"]
    assert (one["low"], one["high"], one["method"]) == (None, None, "one problem")
    assert one["estimate"] == np.mean([v == "correct" for v in TABLES["one problem"]["verdict"].to_pylist()])
    assert summary(TABLES["one sample"])["accuracy"]["method"] == "wilson"
    for name, unit in (("words", "words"), ("tokens or words", "tokens or words"), ("uneven", "tokens")):
        assert summary(TABLES[name])["health"]["length_unit"] == unit


def test_an_arm_goes_by_its_name_and_decoding():
    found = summary(TABLES["uneven"], arm=Arm("b", Setting(1.1, None, 0.9, 0.05)))
    assert (found["name"], found["checkpoint"]) == ("b T=1.1 p=0.9 min-p=0.05", "b")
    assert (found["temperature"], found["top_k"], found["top_p"], found["min_p"]) == (1.1, None, 0.9, 0.05)


def test_problems_weigh_the_same_however_many_samples_they_have():
    table = rows({}, {"sample": 1}, {"sample": 2}, {"problem_id": "q"} | WRONG, {"problem_id": "r"} | NONE)
    found = summary(table)
    assert found["accuracy"]["estimate"] == pytest.approx(1 / 3)
    assert found["health"]["answered"]["estimate"] == pytest.approx(2 / 3)
    assert (found["problems"], found["samples"]) == (3, 5)
    assert found["verdicts"] == {"correct": 3, "no_answer": 1, "wrong": 1}


def test_health_by_hand():
    table = rows(
        {"length": 10, "finish_reason": "stop", "repetition": 0.5, "looped": True},
        {"length": 20, "finish_reason": "length", "repetition": 0.1, "closed": False, "sample": 1} | NONE,
        {"length": 60, "finish_reason": None, "repetition": 0.0, "thinks": False, "closed": False, "problem_id": "q"},
        {"length": 30, "finish_reason": "stop", "repetition": 0.2, "problem_id": "q", "sample": 1} | WRONG,
    )
    health = summary(table)["health"]
    assert health["repetition"] == pytest.approx(0.2)
    assert (health["boxed"], health["loops"]) == (0.75, 0.25)
    assert health["think_closed"] == pytest.approx(2 / 3)  # of the three that think
    assert health["length_stops"] == pytest.approx(1 / 3)  # of the three that say how they ended
    assert (health["lengths"]["mean"], health["lengths"]["p50"], health["lengths"]["longest"]) == (30, 25, 60)
    assert (health["lengths_correct"]["mean"], health["lengths_other"]["mean"]) == (35, 25)


def test_figures_are_those_of_the_statistics():
    table = grid(30, 4)
    outcomes, found = outcomes_of(table), summary(table, (1, 4))
    for figure in ("estimate", "low", "high", "method"):
        assert found["accuracy"][figure] == getattr(accuracy(outcomes), figure)
        assert found["pass_at"]["4"][figure] == getattr(pass_at(outcomes, 4), figure)
    assert list(found["pass_at"]) == ["1", "4"]
    assert found["pass_at"]["1"]["estimate"] == pytest.approx(found["accuracy"]["estimate"])
    parts = split_variance(outcomes)
    assert found["variance"] == {
        "between": parts.between,
        "within": parts.within,
        "share_between": parts.between / (parts.between + parts.within),
    }


def test_pass_at_more_than_the_samples_is_refused_by_problem():
    with pytest.raises(ValueError, match=r"1 problems have fewer than 3 samples, the first 'p3' with 1"):
        summary(TABLES["uneven"], (1, 3))
    assert summary(TABLES["uneven"])["pass_at"] == {}


def test_pass_at_k_of_one_problem_has_no_interval():
    assert summary(TABLES["one problem"], (2,))["pass_at"]["2"]["low"] is None


def test_columns_that_are_true_or_false_are_outcomes_too():
    table = rows({"looped": True}, {"sample": 1}, {"problem_id": "q", "looped": True})
    assert outcomes_of(table, "looped").mean_P.tolist() == [0.5, 1]


def test_difficulties_stand_in_order_as_numbers_then_as_text():
    table = grid(18, 1, difficulty=["hard", "10", "2", None, "1.5", "easy"])
    assert list(summary(table)["by_difficulty"]) == ["1.5", "2", "10", "", "easy", "hard"]


def test_parts_add_up_to_the_whole():
    table = grid(24, 2, source=["a", "a", None, None, "b", "b"], difficulty=["1", "1", "2", "2"])
    found = summary(table)
    for parts in (found["by_source"], found["by_difficulty"]):
        assert sum(part["samples"] for part in parts.values()) == found["samples"] == 48
        assert sum(part["problems"] for part in parts.values()) == found["problems"] == 24
        right = sum(part["accuracy"]["estimate"] * part["problems"] for part in parts.values())
        assert right / 24 == pytest.approx(found["accuracy"]["estimate"])
        counts = [part["verdicts"].get("correct", 0) for part in parts.values()]
        assert sum(counts) == found["verdicts"]["correct"] > max(counts)
    assert set(found["by_source"]) == {"a", "", "b"}


# Told


def results(*arms, **more):
    """As results.json has them."""
    return {
        "problems": 6,
        "planned": 6,
        "arms": [summary_of(arm, table, (1,), seed=0) for arm, table in arms],
        "selection": None,
        "comparisons": [],
        "sequential": [],
        "other_prompts": {},
    } | more


def swept():
    rng, arms = np.random.default_rng(1), {}
    for label, temperature in (("base", 0.6), ("base", 1.2), ("new", 0.6), ("new", 1.2)):
        changes = ({} if rng.random() < 0.5 else WRONG for _ in range(80))
        arms[Arm(label, Setting(temperature))] = rows(
            *(change | {"problem_id": f"p{n // 2}", "sample": n % 2} for n, change in enumerate(changes))
        )
    outcomes = {arm: outcomes_of(table) for arm, table in arms.items()}
    return results(*arms.items(), **compared(outcomes, "base", {f"p{n}": "" for n in range(40)}, 0))


def test_every_arm_has_a_line_with_its_figures():
    lines = told(swept()).split("\n")
    assert lines[0] == "6 problems, 320 samples"
    heads = ["checkpoint  T", "accuracy %", "pass@1 %", "answered", "closed", "length p50"]
    assert all(head in lines[2] for head in heads)
    found = swept()
    for line, arm in zip(lines[3:7], found["arms"], strict=True):
        share = arm["accuracy"]
        assert line.split()[:3] == [arm["checkpoint"], f"{arm['temperature']}", f"{100 * share['estimate']:.1f}"]
        assert f"[{100 * share['low']:.1f}, {100 * share['high']:.1f}]" in line
    assert lines[7] == "answered: an answer was found; closed: of those that think; length in tokens"


def test_the_choice_is_told_and_its_comparison_stands_before_the_rest_of_the_sweep():
    found = swept()
    lines = told(found).split("\n")
    of_base, of_new = (found["selection"]["chosen"][label]["arm"] for label in ("base", "new"))
    assert f"chosen on 20 problems, compared on the other 20: {of_base}, {of_new}" in lines
    first, second = (line for line in lines if f" against {of_base}: " in line)
    assert first.startswith(f"{of_new} against {of_base}: ")
    assert second.startswith("  also: new T=")
    (chosen,) = (one for one in found["comparisons"] if one["chosen"])
    assert f"{chosen['points']:+.1f} points [{chosen['low']:+.1f}, {chosen['high']:+.1f}]" in first
    assert f"p = {chosen['p']:.3g}, by Holm over 2 p = {chosen['p_holm']:.3g} (sign flips by problem, " in first
    assert f" of 20 problems differ); detectable with a power of 80 %: {chosen['detectable']:.1f} points" in first


@pytest.mark.parametrize("name", TABLES)
def test_all_that_can_be_summed_up_can_be_told(name):
    lines = told(results((ARM, TABLES[name])) if "one" not in name else bare(name)).split("\n")
    assert len(lines) == 5
    assert lines[3].startswith("a  ")
    assert "None" not in lines[3]
    assert ("  -  " in lines[3]) == (name in ("none thinks", "unknown finish reasons"))


def bare(name):
    return results() | {"arms": [summary(TABLES[name])]}


def test_uneven_arms_tell_how_many_problems_each_has_and_what_nobody_knows_is_a_dash():
    found = results((ARM, TABLES["uneven"]), (Arm("b", Setting()), grid(3, 1)))
    head, first, second = told(found).split("\n")[2:5]
    assert head.split()[:6] == ["checkpoint", "T", "k", "p", "min-p", "problems"]
    assert first.split()[:6] == ["a", "0.7", "20", "0.95", "0", "4"]
    assert second.split()[:6] == ["b", "-", "-", "-", "-", "3"]


def test_other_prompts_and_an_unknown_power_are_told():
    found = swept()
    found["other_prompts"] = {"new T=0.6": 1200}
    found["comparisons"][0]["detectable"] = None
    text = told(found)
    assert "new T=0.6 was asked 1,200 problems in other words than the first arm" in text
    assert text.count("power of 80 %: - points") == 1


@pytest.mark.parametrize(
    ("verdict", "wording"),
    [
        ("first is better", "base is better"),
        ("second is better", "new is better"),
        ("no difference", "no difference within 2.5 points"),
        ("undecided", "undecided, as the rest would hardly decide it,"),
    ],
)
def test_a_sequence_tells_its_last_verdict(verdict, wording):
    early = {"verdict": "undecided", "problems": 10, "points": 0.0, "low": -9.0, "high": 9.0}
    last = {"verdict": verdict, "problems": 1500, "points": 1.26, "low": -0.5, "high": 3.0}
    sequence = {"baseline": "base", "arm": "new", "margin": 2.5, "alpha": 0.025, "maximum": 2000, "planned": 5}
    text = told(results((ARM, TABLES["uneven"].slice(0, 6)), sequential=[sequence | {"looks": [early, last]}]))
    assert text.split("\n")[-2] == (
        f"new against base: {wording} after 1,500 of 2,000 problems, +1.3 points [-0.5, +3.0]"
        " (group sequential, look 2 of 5, alpha 0.025)"
    )
