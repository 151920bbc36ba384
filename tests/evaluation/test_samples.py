"""Completions become rows of one table: examined, held to the problems and prompts of the other runs, graded."""

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
from ssdfast.evaluation.runs import KnownSamplingParams, Run
from ssdfast.evaluation.samples import (
    SCHEMA,
    check_problems,
    check_prompts,
    check_thinking,
    examine_completions,
    grade_runs,
    split_by_run,
)
from ssdfast.problems.problem import Problem

CLOSES = r"\boxed{3} no </think> \boxed{4}"
PLAIN = r"it is \boxed{4}"
COOL, WARM = KnownSamplingParams(0.7, 20, 0.95, 0.0), KnownSamplingParams(1.1, 20, 0.95, 0.0)


def one(text=PLAIN, name="p", sample=0, sampling=COOL, prompt="", ids=None):
    tokens = None if ids is None else len(ids)
    return Completion(
        name, sample, text, ids, tokens, "stop", sampling, prompt, f"file:{name}#{sample}", f"{name}#{sample}"
    )


def run_of(texts, sampling=COOL):
    return [one(text, sample=number, sampling=sampling) for number, text in enumerate(texts)]


def runs_of(prompts, label="a"):
    """A run with these prompts."""
    return examine_completions(
        label, [one(name=name, sample=n, prompt=prompt) for n, (name, prompt) in enumerate(prompts)], FREE
    )


FREE = ExtractionConfig()


class Equal:
    """A pool that grades an answer as correct where it is the gold answer's text."""

    grader = ""

    def are_parsable(self, golds):
        return [True] * len(golds)

    def grade(self, pairs, advance):
        advance(len(pairs))
        return ["correct" if gold == answer else "incorrect" for gold, answer in pairs]

    def score(self, pairs, advance):
        return [float(answer) for _, _, answer in pairs]


# Where thinking starts


def test_the_prompt_opened_the_thinking_part_of_a_run_that_closes_it_unopened(caplog):
    (samples,) = examine_completions("a", run_of([CLOSES] * 2 + [PLAIN] * 18), FREE)
    assert [diagnostics.answer for diagnostics in samples.diagnostics] == ["4"] * 2 + [None] * 18
    assert {
        (diagnostics.thinking, diagnostics.think_closed, diagnostics.boxed) for diagnostics in samples.diagnostics
    } == {
        (True, True, True),
        (True, False, False),
    }
    said = caplog.text
    assert "a T=0.7 k=20 p=0.95: 2 of 20 completions close a thinking part that they did not open" in said
    assert "extraction.prompt-opens-thinking False overrides" in said


def test_a_stray_closing_tag_in_a_hundred_changes_nothing_else(caplog):
    (samples,) = examine_completions("a", run_of([CLOSES] + [PLAIN] * 99), FREE)
    assert [diagnostics.answer for diagnostics in samples.diagnostics] == ["4"] * 100
    assert [diagnostics.thinking for diagnostics in samples.diagnostics] == [True] + [False] * 99
    assert not caplog.records


@pytest.mark.parametrize(("stray", "taken"), [(9, False), (10, True)])
def test_a_tenth_of_a_run_is_no_accident(stray, taken):
    (samples,) = examine_completions("a", run_of([CLOSES] * stray + [PLAIN] * (100 - stray)), FREE)
    assert samples.diagnostics[-1].thinking == taken


def test_tags_that_a_completion_opens_itself_say_nothing_of_the_prompt():
    (samples,) = examine_completions("a", run_of([f"<think>{CLOSES}"] * 50 + [PLAIN] * 50), FREE)
    assert [diagnostics.answer for diagnostics in samples.diagnostics] == ["4"] * 100


def test_a_checkpoint_s_prompts_are_the_same_at_every_decoding():
    """Fewer completions close at a higher temperature: that must not change what counts as an answer."""
    completions = run_of([CLOSES] * 9 + [PLAIN]) + run_of([CLOSES] + [PLAIN] * 99, WARM)
    cold, warm = examine_completions("a", completions, FREE)
    assert all(diagnostics.thinking for diagnostics in [*cold.diagnostics, *warm.diagnostics])
    assert [diagnostics.answer for diagnostics in warm.diagnostics] == ["4"] + [None] * 99


def test_runs_of_which_one_is_unclear_are_refused():
    (stray,) = examine_completions("a", run_of([CLOSES] + [PLAIN] * 99), FREE)
    (thinking,) = examine_completions("b", run_of([CLOSES] * 20 + [PLAIN] * 80), FREE)
    (plain,) = examine_completions("c", run_of([PLAIN] * 100), FREE)
    check_thinking([plain, thinking], FREE)
    check_thinking([plain, stray], FREE)
    with pytest.raises(ValueError, match=r"a T=0\.7.*: 1 of 100 completions close .* all of b T=0\.7.* think"):
        check_thinking([thinking, stray], FREE)
    check_thinking([thinking, stray], ExtractionConfig(prompt_opens_thinking=False))


def test_fewer_samples_of_some_problems_are_refused_unless_kept():
    (samples,) = examine_completions(
        "a", [one(name="p", sample=0), one(name="p", sample=1), one(name="q", sample=0)], FREE
    )
    asked = {name: Problem(name, "?", "4") for name in ("p", "q")}
    with pytest.raises(ValueError, match=r"has 1 of 2 samples of q: complete it, .* --on-missing-samples allow"):
        check_problems([samples], asked)
    check_problems([samples], asked, allow_missing=True)


@pytest.mark.parametrize(
    ("said", "prompts_open", "opened"),
    [(False, None, False), (False, True, False), (None, False, False), (None, True, True), (True, False, True)],
)
@pytest.mark.parametrize("texts", [[CLOSES] * 10 + [PLAIN], [PLAIN] * 11])
def test_what_is_known_of_the_prompt_wins_over_the_completions_and_the_setting_over_both(
    said, prompts_open, opened, texts, caplog
):
    (samples,) = examine_completions("a", run_of(texts), ExtractionConfig(prompt_opens_thinking=said), prompts_open)
    assert samples.diagnostics[-1].thinking == opened
    assert samples.diagnostics[-1].answer == (None if opened else "4")
    assert not caplog.records


def test_where_the_thinking_part_counts_nothing_is_left_out():
    (samples,) = examine_completions("a", run_of([CLOSES] * 10 + [PLAIN]), ExtractionConfig(strip_thinking=False))
    assert [diagnostics.answer for diagnostics in samples.diagnostics] == ["4"] * 11


PIECES = st.lists(st.sampled_from(["<think>", "</think>", r"\boxed{1}", "2 ", "x"]), max_size=6).map("".join)


@settings(deadline=None)
@given(PIECES, st.booleans())
def test_reading_it_off_gives_what_saying_so_gives(text, fallback_last_number):
    completions = [one(text), *(one(CLOSES, sample=n) for n in range(1, 5))]
    (samples,) = examine_completions("a", completions, ExtractionConfig(fallback_last_number=fallback_last_number))
    assert samples.diagnostics[0] == examine(
        completions[0], ExtractionRules(prompt_opens_thinking=True, fallback_last_number=fallback_last_number)
    )


def test_texts_are_let_go_once_they_are_examined():
    (samples,) = examine_completions("a", [one(ids=np.arange(5, dtype=np.int32))], FREE)
    assert (samples.completions[0].text, samples.completions[0].ids) == ("", None)
    assert (samples.diagnostics[0].answer, samples.diagnostics[0].length) == ("4", 5)


def test_runs_come_in_the_order_of_their_first_completion():
    found = examine_completions("a", [one(sampling=WARM), one(sampling=COOL), one(sampling=WARM, sample=1)], FREE)
    assert [(samples.run, len(samples.diagnostics)) for samples in found] == [(Run("a", WARM), 2), (Run("a", COOL), 1)]
    assert examine_completions("a", [], FREE) == []


# Problems and prompts


def problems(*names):
    return {name: Problem(name, "?", "4", "source", "hard") for name in names}


def test_answers_to_other_problems_are_named():
    runs = runs_of([("p", ""), ("x", ""), ("y", ""), ("x", "")])
    with pytest.raises(ValueError, match=r"^file:x#1: a T=0.7 .* answers x, y, which are not among the problems: name"):
        check_problems(runs, problems("p"))
    with pytest.raises(ValueError, match=r"answers y, which is not among the problems"):
        check_problems(runs, problems("p", "x"))


def test_problems_without_a_completion_are_named():
    complete, partial = *runs_of([(f"p{n}", "") for n in range(9)]), *runs_of([("p4", "")], "b")
    check_problems([complete], problems(*(f"p{n}" for n in range(9))))
    with pytest.raises(ValueError, match=r"^b T=0.7 .* has no completion of p0, p1, p2 and 5 more: complete it"):
        check_problems([complete, partial], problems(*(f"p{n}" for n in range(9))))
    with pytest.raises(ValueError, match=r"has no completion of p8: complete it"):
        check_problems([partial], problems("p4", "p8"))


@pytest.mark.parametrize("keep", [False, True])
def test_a_run_of_two_versions_of_a_prompt_is_refused(keep):
    runs = runs_of([("p", "text:1"), ("q", "text:1"), ("p", "text:2")])
    with pytest.raises(ValueError, match=r"^file:p#2: a T=0.7 .* has samples of p from two versions of the prompt"):
        check_prompts(runs, keep)


def test_runs_asked_in_other_words_are_refused_or_counted():
    runs = [
        *runs_of([("p", "ids:1"), ("q", "ids:2"), ("r", "ids:3")]),
        *runs_of([("p", "ids:1"), ("q", "ids:9"), ("q", "ids:9"), ("r", "ids:9")], "b"),
        *runs_of([("p", "ids:1"), ("q", "ids:2"), ("r", "ids:3")], "c"),
    ]
    message = "file:q#1: the prompt of q in b T=0.7 k=20 p=0.95 differs from that in a T=0.7 k=20 p=0.95: sample both"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}.*--on-prompt-mismatch allow"):
        check_prompts(runs, allow=False)
    assert check_prompts(runs, allow=True) == {"b T=0.7 k=20 p=0.95": 2}
    assert check_prompts([runs[0], runs[2]], allow=False) == {}


def test_token_ids_are_not_compared_with_text_nor_anything_with_nothing():
    runs = [
        *runs_of([("p", "ids:1"), ("p", "text:1"), ("p", "")]),
        *runs_of([("p", "text:1"), ("p", "ids:1")], "b"),
        *runs_of([("p", "")], "c"),
    ]
    assert check_prompts(runs, allow=False) == check_prompts(runs[::-1], allow=False) == {}
    text_first = [*runs_of([("p", "text:1")]), *runs_of([("p", "ids:1")], "b"), *runs_of([("p", "ids:2")], "c")]
    with pytest.raises(ValueError, match=r"in c T=0.7 .* differs from that in b T=0.7"):
        check_prompts(text_first, allow=False)


def test_a_group_drops_problems_with_all_that_is_known_of_them():
    (samples,) = examine_completions(
        "a", [one(r"\boxed{1}"), one(r"\boxed{2}", "q"), one(r"\boxed{3}", sample=1)], FREE
    )
    assert samples.drop({"q", "elsewhere"}) == 1
    assert [(each.problem_id, each.sample) for each in samples.completions] == [("p", 0), ("p", 1)]
    assert [diagnostics.answer for diagnostics in samples.diagnostics] == ["1", "3"]
    assert samples.drop(["p"]) == 2
    assert samples.completions == samples.diagnostics == []


# The table


@pytest.fixture
def table():
    asked = problems("p", "q") | {"g": Problem("g", "?", None, "made", "2", {"generator": "sum"})}
    runs = [
        *examine_completions(
            "a", [one(), one("none", "q"), one(r"\boxed{5}", sample=1), one(r"\boxed{0.5}", "g")], FREE
        ),
        *examine_completions(
            "b", [one(ids=np.arange(9, dtype=np.int32), sampling=KnownSamplingParams()), one(sampling=WARM)], FREE
        ),
    ]
    return grade_runs(runs, asked, Equal())


def test_the_table_holds_a_row_a_completion_in_order_arm_by_arm(table):
    assert table.schema == SCHEMA
    names = ("checkpoint", "temperature", "problem_id", "sample", "grade", "score", "answer")
    assert list(zip(*(table[name].to_pylist() for name in names), strict=True)) == [
        ("a", 0.7, "p", 0, "correct", 1.0, "4"),
        ("a", 0.7, "q", 0, "no_answer", 0.0, None),
        ("a", 0.7, "p", 1, "incorrect", 0.0, "5"),
        ("a", 0.7, "g", 0, "incorrect", 0.5, "0.5"),
        ("b", None, "p", 0, "correct", 1.0, "4"),
        ("b", 1.1, "p", 0, "correct", 1.0, "4"),
    ]
    assert table.slice(3, 2).to_pylist() == [
        {
            "checkpoint": "a", "temperature": 0.7, "top_k": 20, "top_p": 0.95, "min_p": 0.0,
            "trace_id": "g#0", "problem_id": "g", "sample": 0, "source": "made", "difficulty": "2",
            "question": "?", "gold": None, "answer": "0.5", "grade": "incorrect", "score": 0.5, "finish_reason": "stop",
            "boxed": True, "thinking": False, "think_closed": False, "length": 1, "length_in_tokens": False,
            "looped": False, "repetition": 0.0,
        },
        {
            "checkpoint": "b", "temperature": None, "top_k": None, "top_p": None, "min_p": None,
            "trace_id": "p#0", "problem_id": "p", "sample": 0, "source": "source", "difficulty": "hard",
            "question": "?", "gold": "4", "answer": "4", "grade": "correct", "score": 1.0, "finish_reason": "stop",
            "boxed": True, "thinking": False, "think_closed": False, "length": 9, "length_in_tokens": True,
            "looped": False, "repetition": 0.0,
        },
    ]  # fmt: skip


def test_the_table_is_parted_by_arm_and_comes_back_from_a_file(table, tmp_path):
    pq.write_table(table, tmp_path / "samples.parquet")
    runs = split_by_run(pq.read_table(tmp_path / "samples.parquet"))
    assert list(runs) == [Run("a", COOL), Run("b", KnownSamplingParams()), Run("b", WARM)]
    assert [rows["problem_id"].to_pylist() for rows in runs.values()] == [["p", "q", "p", "g"], ["p"], ["p"]]
