"""Problems and completions in, grades out."""

from __future__ import annotations

from itertools import islice

import pytest

from ssdfast.evaluation.answers import Conventions
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


GRADER = """
import time

def score(problem, answer):
    if answer == "slow":
        while True:
            pass
    if answer == "write":
        open("written", "w")
    return len(answer) / len(problem.question)

full = 1.0

def broken(problem, answer):
    return int(answer)
"""


@pytest.fixture
def own_grader(tmp_path, monkeypatch):
    (tmp_path / "own_grader.py").write_text(GRADER)
    (tmp_path / "half_written.py").write_text("def score(")
    monkeypatch.chdir(tmp_path)


def test_a_grader_of_the_users_runs_in_the_same_workers(own_grader, tmp_path):
    asked = Problem("p", "four", None)
    texts = [r"\boxed{abcd}", r"\boxed{ab}", r"\boxed{slow}", r"\boxed{write}", "none"]
    with GraderPool(workers=1, cpu_seconds=1, grader="own_grader:score") as pool:
        graded = grade_completions([(asked, text) for text in texts], pool)
    assert [(one.grade, one.score) for one in graded] == [
        ("correct", 1.0), ("incorrect", 0.5), ("timeout", 0.0), ("unparsable", 0.0), ("no_answer", 0.0),
    ]  # fmt: skip
    assert not (tmp_path / "written").exists()


def test_a_grader_that_fails_is_named_once(own_grader, caplog):
    with GraderPool(workers=1, grader="own_grader:broken") as pool:
        graded = grade_completions([(problem("p", None), rf"\boxed{{{text}}}") for text in ("x", "y", "1")], pool)
    assert [one.grade for one in graded] == ["unparsable", "unparsable", "correct"]
    assert len(caplog.messages) == 1
    assert "own_grader:broken raises ValueError" in caplog.text


@pytest.mark.parametrize(
    ("grader", "said"),
    [
        ("own_grader", "must be of the form module:function"),
        ("no_such_module:score", "no_such_module:score cannot be imported"),
        ("own_grader:no_such", "has no function no_such"),
        ("own_grader:full", "has no function full"),
        ("half_written:score", "importing the grader half_written:score raises SyntaxError"),
    ],
)
def test_a_grader_that_is_not_there_is_named(own_grader, grader, said):
    with pytest.raises(ValueError, match=said), GraderPool(workers=1, grader=grader):
        pass


def test_a_score_outside_the_scale_is_refused(own_grader):
    with GraderPool(workers=1, grader="own_grader:score") as pool, pytest.raises(ValueError, match="outside"):
        grade_completions([(Problem("p", "four", None), r"\boxed{abcde}")], pool)


def test_conventions_reach_the_workers():
    two_thirds = [(problem("p", "0.67"), r"\boxed{\frac{2}{3}}")]
    with GraderPool(workers=1, conventions=Conventions(round_to_gold=True)) as pool:
        assert grade_completions(two_thirds, pool)[0].grade == "correct"


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
