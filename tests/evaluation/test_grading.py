"""Problems and completions in, grades out."""

from __future__ import annotations

from itertools import islice

import pytest

from ssdfast.evaluation.extract import ExtractionRules
from ssdfast.evaluation.grader_pool import GraderPool
from ssdfast.evaluation.grading import Graded, grade_completion, grade_completions
from ssdfast.problems.problem import Problem

pytest.importorskip("math_verify")


@pytest.fixture(scope="module")
def pool():
    with GraderPool(workers=1) as graders:
        yield graders


def problem(name: str, answer: str | None) -> Problem:
    return Problem(name, "?", answer)


def test_each_completion_gets_its_grade(pool):
    half, line = problem("half", r"\frac{1}{2}"), problem("line", "2x+2")
    samples = [
        (half, r"<think>\boxed{3}</think>so \boxed{0.5}"),
        (line, r"\boxed{2(x+1)}"),
        (half, r"\boxed{0.4}"),
        (half, "I give up"),
        (line, r"\boxed{((}"),
    ]
    assert grade_completions(samples, pool) == [
        Graded("correct", "0.5", 1.0),
        Graded("correct", "2(x+1)", 1.0),
        Graded("incorrect", "0.4", 0.0),
        Graded("no_answer", None, 0.0),
        Graded("unparsable", "((", 0.0),
    ]


def test_rules_of_extraction_reach_the_text(pool):
    assert grade_completion(problem("p", "4"), "it is 4", pool).grade == "no_answer"
    assert (
        grade_completion(problem("p", "4"), "it is 4", pool, ExtractionRules(fallback_last_number=True)).grade
        == "correct"
    )


def test_generators_score_their_own_problems(pool):
    pytest.importorskip("reasoning_gym")
    from ssdfast.problems.reasoning_gym import generate

    asked = next(islice(generate("chain_sum", {}, 0), 1))
    right = grade_completion(asked, rf"\boxed{{{asked.answer}}}", pool)
    wrong = grade_completion(asked, rf"\boxed{{{int(asked.answer or 0) + 1}}}", pool)
    assert (right.grade, right.score) == ("correct", 1.0)
    assert wrong.grade == "incorrect"
    assert wrong.score < 1
    assert grade_completion(asked, "nothing", pool).grade == "no_answer"


def test_an_answer_that_is_code_does_nothing(tmp_path):
    """The scorer of this generator evaluates the answer as Python."""
    pytest.importorskip("reasoning_gym")
    from ssdfast.problems.reasoning_gym import generate

    asked = next(generate("simple_integration", {}, 0))
    file = tmp_path / "made"
    hostile = [f"open('{file}', 'w')", f"__import__('os').system('touch {file}')", "9**9**9**9**9"]
    with GraderPool(workers=1, cpu_seconds=1) as pool:
        graded = grade_completions([(asked, rf"\boxed{{{text}}}") for text in [*hostile, asked.answer or ""]], pool)
    assert not file.exists()
    assert [one.grade for one in graded] == ["incorrect", "incorrect", "timeout", "correct"]


def test_missing_gold_answers_are_named(pool):
    samples = [(problem(name, answer), r"\boxed{1}") for name, answer in (("a", "1"), ("b", None), ("c", " "))]
    with pytest.raises(ValueError, match=r"2 problems \(b, c\) without a gold answer"):
        grade_completions(samples, pool)


def test_gold_answers_that_cannot_be_read_are_named_and_shown(pool):
    samples = [(problem("a", "1"), r"\boxed{1}"), (problem("broken", r"\frac{1}{"), r"\boxed{\frac{1}{}")]
    with pytest.raises(ValueError, match=r"1 problem \(broken\) with a gold answer that cannot be parsed.*frac"):
        grade_completions(samples, pool)


def test_one_id_with_two_gold_answers_is_refused(pool):
    with pytest.raises(ValueError, match=r"1 problem \(a\) with different gold answers"):
        grade_completions([(problem("a", "1"), ""), (problem("a", "2"), "")], pool)


def test_a_long_list_of_names_is_cut(pool):
    with pytest.raises(ValueError, match=r"7 problems \(p0, p1, p2 and 4 more\)"):
        grade_completions([(problem(f"p{n}", None), "") for n in range(7)], pool)
