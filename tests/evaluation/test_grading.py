"""Problems and completions in, verdicts out."""

from __future__ import annotations

from itertools import islice

import pytest

from ssdfast.evaluation.extract import ExtractionRules
from ssdfast.evaluation.grader_pool import Checkers
from ssdfast.evaluation.grading import Judged, judge, judge_all
from ssdfast.problems.problem import Problem

pytest.importorskip("math_verify")


@pytest.fixture(scope="module")
def checkers():
    with Checkers(workers=1) as pool:
        yield pool


def problem(name: str, answer: str | None) -> Problem:
    return Problem(name, "?", answer)


def test_each_completion_gets_its_verdict(checkers):
    half, line = problem("half", r"\frac{1}{2}"), problem("line", "2x+2")
    samples = [
        (half, r"<think>\boxed{3}</think>so \boxed{0.5}"),
        (line, r"\boxed{2(x+1)}"),
        (half, r"\boxed{0.4}"),
        (half, "I give up"),
        (line, r"\boxed{((}"),
    ]
    assert judge_all(samples, checkers) == [
        Judged("correct", "0.5", 1.0),
        Judged("correct", "2(x+1)", 1.0),
        Judged("wrong", "0.4", 0.0),
        Judged("no_answer", None, 0.0),
        Judged("unparsable", "((", 0.0),
    ]


def test_rules_of_extraction_reach_the_text(checkers):
    assert judge(problem("p", "4"), "it is 4", checkers).verdict == "no_answer"
    assert judge(problem("p", "4"), "it is 4", checkers, ExtractionRules(last_number=True)).verdict == "correct"


def test_generators_score_their_own_problems(checkers):
    pytest.importorskip("reasoning_gym")
    from ssdfast.problems.reasoning_gym import generate

    asked = next(islice(generate("chain_sum", {}, 0), 1))
    right = judge(asked, rf"\boxed{{{asked.answer}}}", checkers)
    wrong = judge(asked, rf"\boxed{{{int(asked.answer or 0) + 1}}}", checkers)
    assert (right.verdict, right.score) == ("correct", 1.0)
    assert wrong.verdict == "wrong"
    assert wrong.score < 1
    assert judge(asked, "nothing", checkers).verdict == "no_answer"


def test_an_answer_that_is_code_does_nothing(tmp_path):
    """The scorer of this generator evaluates the answer as Python."""
    pytest.importorskip("reasoning_gym")
    from ssdfast.problems.reasoning_gym import generate

    asked = next(generate("simple_integration", {}, 0))
    file = tmp_path / "made"
    hostile = [f"open('{file}', 'w')", f"__import__('os').system('touch {file}')", "9**9**9**9**9"]
    with Checkers(workers=1, seconds=1) as pool:
        judged = judge_all([(asked, rf"\boxed{{{text}}}") for text in [*hostile, asked.answer or ""]], pool)
    assert not file.exists()
    assert [one.verdict for one in judged] == ["wrong", "wrong", "timed_out", "correct"]


def test_missing_gold_answers_are_named(checkers):
    samples = [(problem(name, answer), r"\boxed{1}") for name, answer in (("a", "1"), ("b", None), ("c", " "))]
    with pytest.raises(ValueError, match=r"2 problems \(b, c\) without a gold answer"):
        judge_all(samples, checkers)


def test_gold_answers_that_cannot_be_read_are_named_and_shown(checkers):
    samples = [(problem("a", "1"), r"\boxed{1}"), (problem("broken", r"\frac{1}{"), r"\boxed{\frac{1}{}")]
    with pytest.raises(ValueError, match=r"1 problem \(broken\) with a gold answer that cannot be read.*frac"):
        judge_all(samples, checkers)


def test_one_id_with_two_gold_answers_is_refused(checkers):
    with pytest.raises(ValueError, match=r"1 problem \(a\) with different gold answers"):
        judge_all([(problem("a", "1"), ""), (problem("a", "2"), "")], checkers)


def test_a_long_list_of_names_is_cut(checkers):
    with pytest.raises(ValueError, match=r"7 problems \(p0, p1, p2, p3, p4 and 2 more\)"):
        judge_all([(problem(f"p{n}", None), "") for n in range(7)], checkers)
