"""Completions become rows of one table: examined, held to the problems and prompts of the other arms, judged."""

from __future__ import annotations

import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdfast.config import ExtractionConfig
from ssdfast.evaluation.completions import Completion
from ssdfast.evaluation.diagnostics import examine
from ssdfast.evaluation.extract import ExtractionRules
from ssdfast.evaluation.runs import Arm, Setting
from ssdfast.evaluation.samples import SCHEMA, by_arm, check_problems, check_prompts, check_thinking, examined, judged
from ssdfast.problems.problem import Problem

CLOSES = r"\boxed{3} no </think> \boxed{4}"
PLAIN = r"it is \boxed{4}"
COOL, WARM = Setting(0.7, 20, 0.95, 0.0), Setting(1.1, 20, 0.95, 0.0)


def one(text=PLAIN, name="p", sample=0, setting=COOL, prompt="", ids=None):
    tokens = None if ids is None else len(ids)
    return Completion(name, sample, text, ids, tokens, "stop", setting, prompt, f"file:{name}#{sample}")


def arm_of(texts, setting=COOL):
    return [one(text, sample=number, setting=setting) for number, text in enumerate(texts)]


def groups_of(prompts, label="a"):
    """An arm that was asked these problems in these words."""
    return examined(label, [one(name=name, sample=n, prompt=prompt) for n, (name, prompt) in enumerate(prompts)], FREE)


FREE = ExtractionConfig()


class Equal:
    """A pool of checkers to which an answer is right where it is the gold one's text."""

    def readable(self, golds):
        return [True] * len(golds)

    def check(self, pairs, told):
        told(len(pairs))
        return ["correct" if gold == answer else "wrong" for gold, answer in pairs]

    def score(self, pairs, told):
        return [float(answer) for _, answer in pairs]


# Where thinking starts


def test_the_prompt_opened_the_thinking_part_of_an_arm_that_closes_it_unopened(capsys):
    (group,) = examined("a", arm_of([CLOSES] * 2 + [PLAIN] * 18), FREE)
    assert [health.extracted for health in group.health] == ["4"] * 2 + [None] * 18
    assert {(health.thinks, health.closed, health.boxed) for health in group.health} == {
        (True, True, True),
        (True, False, False),
    }
    said = capsys.readouterr().err
    assert "a T=0.7 k=20 p=0.95: 2 of 20 completions close a thinking part that they did not open" in said
    assert "extraction.starts-thinking False says otherwise" in said


def test_a_stray_closing_tag_in_a_hundred_changes_nothing_else(capsys):
    (group,) = examined("a", arm_of([CLOSES] + [PLAIN] * 99), FREE)
    assert [health.extracted for health in group.health] == ["4"] * 100
    assert [health.thinks for health in group.health] == [True] + [False] * 99
    assert not capsys.readouterr().err


@pytest.mark.parametrize(("stray", "taken"), [(9, False), (10, True)])
def test_a_tenth_of_an_arm_is_no_accident(stray, taken):
    (group,) = examined("a", arm_of([CLOSES] * stray + [PLAIN] * (100 - stray)), FREE)
    assert group.health[-1].thinks == taken


def test_tags_that_a_completion_opens_itself_say_nothing_of_the_prompt():
    (group,) = examined("a", arm_of([f"<think>{CLOSES}"] * 50 + [PLAIN] * 50), FREE)
    assert [health.extracted for health in group.health] == ["4"] * 100


def test_a_checkpoint_s_prompts_are_the_same_at_every_decoding():
    """Fewer completions close at a higher temperature: that must not change what counts as an answer."""
    completions = arm_of([CLOSES] * 9 + [PLAIN]) + arm_of([CLOSES] + [PLAIN] * 99, WARM)
    cold, warm = examined("a", completions, FREE)
    assert all(health.thinks for health in [*cold.health, *warm.health])
    assert [health.extracted for health in warm.health] == ["4"] + [None] * 99


def test_arms_of_which_one_is_unclear_are_refused():
    (stray,) = examined("a", arm_of([CLOSES] + [PLAIN] * 99), FREE)
    (thinking,) = examined("b", arm_of([CLOSES] * 20 + [PLAIN] * 80), FREE)
    (plain,) = examined("c", arm_of([PLAIN] * 100), FREE)
    check_thinking([plain, thinking], FREE)
    check_thinking([plain, stray], FREE)
    with pytest.raises(ValueError, match=r"a T=0\.7.*: 1 of 100 completions close .* all of b T=0\.7.* think"):
        check_thinking([thinking, stray], FREE)
    check_thinking([thinking, stray], ExtractionConfig(starts_thinking=False))


def test_fewer_samples_of_some_problems_are_refused_unless_kept():
    (group,) = examined("a", [one(name="p", sample=0), one(name="p", sample=1), one(name="q", sample=0)], FREE)
    asked = {name: Problem(name, "?", "4") for name in ("p", "q")}
    with pytest.raises(ValueError, match=r"has 1 of 2 samples of q: complete it, .* --uneven keep"):
        check_problems([group], asked)
    check_problems([group], asked, keep_uneven=True)


@pytest.mark.parametrize(
    ("said", "prompts_open", "opened"),
    [(False, None, False), (False, True, False), (None, False, False), (None, True, True), (True, False, True)],
)
@pytest.mark.parametrize("texts", [[CLOSES] * 10 + [PLAIN], [PLAIN] * 11])
def test_what_is_known_of_the_prompt_wins_over_the_completions_and_the_setting_over_both(
    said, prompts_open, opened, texts, capsys
):
    (group,) = examined("a", arm_of(texts), ExtractionConfig(starts_thinking=said), prompts_open)
    assert group.health[-1].thinks == opened
    assert group.health[-1].extracted == (None if opened else "4")
    assert not capsys.readouterr().err


def test_where_the_thinking_part_counts_nothing_is_left_out():
    (group,) = examined("a", arm_of([CLOSES] * 10 + [PLAIN]), ExtractionConfig(thinking=False))
    assert [health.extracted for health in group.health] == ["4"] * 11


PIECES = st.lists(st.sampled_from(["<think>", "</think>", r"\boxed{1}", "2 ", "x"]), max_size=6).map("".join)


@settings(deadline=None)
@given(PIECES, st.booleans())
def test_reading_it_off_gives_what_saying_so_gives(text, last_number):
    completions = [one(text), *(one(CLOSES, sample=n) for n in range(1, 5))]
    (group,) = examined("a", completions, ExtractionConfig(last_number=last_number))
    assert group.health[0] == examine(completions[0], ExtractionRules(starts_thinking=True, last_number=last_number))


def test_texts_are_let_go_once_they_are_examined():
    (group,) = examined("a", [one(ids=np.arange(5, dtype=np.int32))], FREE)
    assert (group.completions[0].text, group.completions[0].ids) == ("", None)
    assert (group.health[0].extracted, group.health[0].length) == ("4", 5)


def test_arms_come_in_the_order_of_their_first_completion():
    found = examined("a", [one(setting=WARM), one(setting=COOL), one(setting=WARM, sample=1)], FREE)
    assert [(group.arm, len(group.health)) for group in found] == [(Arm("a", WARM), 2), (Arm("a", COOL), 1)]
    assert examined("a", [], FREE) == []


# Problems and prompts


def problems(*names):
    return {name: Problem(name, "?", "4", "source", "hard") for name in names}


def test_answers_to_other_problems_are_named():
    groups = groups_of([("p", ""), ("x", ""), ("y", ""), ("x", "")])
    with pytest.raises(ValueError, match=r"^file:x#1: a T=0.7 .* answers x, y, which are not among the problems: name"):
        check_problems(groups, problems("p"))
    with pytest.raises(ValueError, match=r"answers y, which is not among the problems"):
        check_problems(groups, problems("p", "x"))


def test_problems_without_a_completion_are_named():
    complete, partial = *groups_of([(f"p{n}", "") for n in range(9)]), *groups_of([("p4", "")], "b")
    check_problems([complete], problems(*(f"p{n}" for n in range(9))))
    with pytest.raises(ValueError, match=r"^b T=0.7 .* has no completion of p0, p1, p2 and 5 more: complete it"):
        check_problems([complete, partial], problems(*(f"p{n}" for n in range(9))))
    with pytest.raises(ValueError, match=r"has no completion of p8: complete it"):
        check_problems([partial], problems("p4", "p8"))


@pytest.mark.parametrize("keep", [False, True])
def test_an_arm_of_two_versions_of_a_prompt_is_refused(keep):
    groups = groups_of([("p", "text:1"), ("q", "text:1"), ("p", "text:2")])
    with pytest.raises(ValueError, match=r"^file:p#2: a T=0.7 .* has samples of p from two versions of the prompt"):
        check_prompts(groups, keep)


def test_arms_asked_in_other_words_are_refused_or_counted():
    groups = [
        *groups_of([("p", "ids:1"), ("q", "ids:2"), ("r", "ids:3")]),
        *groups_of([("p", "ids:1"), ("q", "ids:9"), ("q", "ids:9"), ("r", "ids:9")], "b"),
        *groups_of([("p", "ids:1"), ("q", "ids:2"), ("r", "ids:3")], "c"),
    ]
    message = "file:q#1: b T=0.7 k=20 p=0.95 was asked q in other words than a T=0.7 k=20 p=0.95: sample both"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}.*other_prompts=keep"):
        check_prompts(groups, keep=False)
    assert check_prompts(groups, keep=True) == {"b T=0.7 k=20 p=0.95": 2}
    assert check_prompts([groups[0], groups[2]], keep=False) == {}


def test_token_ids_are_not_compared_with_text_nor_anything_with_nothing():
    groups = [
        *groups_of([("p", "ids:1"), ("p", "text:1"), ("p", "")]),
        *groups_of([("p", "text:1"), ("p", "ids:1")], "b"),
        *groups_of([("p", "")], "c"),
    ]
    assert check_prompts(groups, keep=False) == check_prompts(groups[::-1], keep=False) == {}
    text_first = [*groups_of([("p", "text:1")]), *groups_of([("p", "ids:1")], "b"), *groups_of([("p", "ids:2")], "c")]
    with pytest.raises(ValueError, match=r"c T=0.7 .* in other words than b T=0.7"):
        check_prompts(text_first, keep=False)


def test_a_group_drops_problems_with_all_that_is_known_of_them():
    (group,) = examined("a", [one(r"\boxed{1}"), one(r"\boxed{2}", "q"), one(r"\boxed{3}", sample=1)], FREE)
    assert group.drop({"q", "elsewhere"}) == 1
    assert [(each.problem_id, each.sample) for each in group.completions] == [("p", 0), ("p", 1)]
    assert [health.extracted for health in group.health] == ["1", "3"]
    assert group.drop(["p"]) == 2
    assert group.completions == group.health == []


# The table


@pytest.fixture
def table():
    asked = problems("p", "q") | {"g": Problem("g", "?", None, "made", "2", {"generator": "sum"})}
    groups = [
        *examined("a", [one(), one("none", "q"), one(r"\boxed{5}", sample=1), one(r"\boxed{0.5}", "g")], FREE),
        *examined("b", [one(ids=np.arange(9, dtype=np.int32), setting=Setting()), one(setting=WARM)], FREE),
    ]
    return judged(groups, asked, Equal())


def test_the_table_holds_a_row_a_completion_in_order_arm_by_arm(table):
    assert table.schema == SCHEMA
    names = ("checkpoint", "temperature", "problem_id", "sample", "verdict", "score", "extracted")
    assert list(zip(*(table[name].to_pylist() for name in names), strict=True)) == [
        ("a", 0.7, "p", 0, "correct", 1.0, "4"),
        ("a", 0.7, "q", 0, "no_answer", 0.0, None),
        ("a", 0.7, "p", 1, "wrong", 0.0, "5"),
        ("a", 0.7, "g", 0, "wrong", 0.5, "0.5"),
        ("b", None, "p", 0, "correct", 1.0, "4"),
        ("b", 1.1, "p", 0, "correct", 1.0, "4"),
    ]
    assert table.slice(3, 2).to_pylist() == [
        {
            "checkpoint": "a", "temperature": 0.7, "top_k": 20, "top_p": 0.95, "min_p": 0.0,
            "problem_id": "g", "sample": 0, "source": "made", "difficulty": "2",
            "verdict": "wrong", "score": 0.5, "extracted": "0.5", "finish_reason": "stop",
            "boxed": True, "thinks": False, "closed": False, "length": 1, "in_tokens": False,
            "looped": False, "repetition": 0.0,
        },
        {
            "checkpoint": "b", "temperature": None, "top_k": None, "top_p": None, "min_p": None,
            "problem_id": "p", "sample": 0, "source": "source", "difficulty": "hard",
            "verdict": "correct", "score": 1.0, "extracted": "4", "finish_reason": "stop",
            "boxed": True, "thinks": False, "closed": False, "length": 9, "in_tokens": True,
            "looped": False, "repetition": 0.0,
        },
    ]  # fmt: skip


def test_the_table_is_parted_by_arm_and_comes_back_from_a_file(table, tmp_path):
    pq.write_table(table, tmp_path / "samples.parquet")
    arms = by_arm(pq.read_table(tmp_path / "samples.parquet"))
    assert list(arms) == [Arm("a", COOL), Arm("b", Setting()), Arm("b", WARM)]
    assert [rows["problem_id"].to_pylist() for rows in arms.values()] == [["p", "q", "p", "g"], ["p"], ["p"]]
