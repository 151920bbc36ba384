"""From a problem and a completion's text to a grade.

with GraderPool() as pool:
    check_golds(problems, pool)
    grades = grade_completions([(problem, text), ...], pool)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..number_format import format_names
from ..problems.problem import Problem
from .answers.grade import Grade
from .extract import DEFAULT, ExtractionRules, extract
from .grader_pool import GraderPool, Result

GENERATOR_GRADER = "ssdfast.evaluation.generator_grader:score"
"""The grader of the problems of a reasoning-gym generator."""
_FULL_SCORE = 1 - 1e-9


@dataclass(frozen=True)
class Graded:
    """A graded answer."""

    grade: Grade
    answer: str | None
    """The answer as the completion words it; None where it states none."""
    score: float
    """1 for a correct answer, 0 for any other; the score that a grader gives may be between."""


def grade_completion(problem: Problem, text: str, pool: GraderPool, rules: ExtractionRules = DEFAULT) -> Graded:
    """The grade of one completion. Raises ValueError like `grade_completions`."""
    return grade_completions([(problem, text)], pool, rules)[0]


def grade_completions(
    samples: Sequence[tuple[Problem, str]],
    pool: GraderPool,
    rules: ExtractionRules = DEFAULT,
    advance: Callable[[int], object] = lambda n: None,
) -> list[Graded]:
    """The grade of each completion, in order; `advance` is called with the number graded since its last call.

    Problems of a reasoning-gym generator are scored by it, all others by the pool's grader or, where it has none,
    compared with their gold answer.
    Raises ValueError that names the problems whose gold answer is missing or cannot be parsed, or whose scorer gives a
    number outside [0, 1].
    """
    return grade_answers([(problem, extract(text, rules)) for problem, text in samples], pool, advance)


def grade_answers(
    answers: Sequence[tuple[Problem, str | None]], pool: GraderPool, advance: Callable[[int], object] = lambda n: None
) -> list[Graded]:
    """Like `grade_completions`, of extracted answers; None where a completion states none."""
    check_golds([problem for problem, _ in answers], pool)
    stated = [(problem, answer) for problem, answer in answers if answer is not None]
    advance(len(answers) - len(stated))
    graders = {id(problem): choose_grader(problem, pool) for problem, _ in answers}
    scored = [(grader, problem, answer) for problem, answer in stated if (grader := graders[id(problem)])]
    scores = iter(pool.score(scored, advance))
    pairs = [(problem.answer or "", answer) for problem, answer in stated if not graders[id(problem)]]
    grades = iter(pool.grade(pairs, advance))
    graded = []
    for problem, answer in answers:
        if answer is None:
            graded.append(Graded("no_answer", None, 0.0))
        elif grader := graders[id(problem)]:
            graded.append(_from_score(next(scores), grader, problem, answer))
        else:
            grade = next(grades)
            graded.append(Graded(grade, answer, float(grade == "correct")))
    return graded


def check_golds(problems: Sequence[Problem], pool: GraderPool) -> None:
    """Raises ValueError that names the problems whose gold answer is missing or cannot be parsed, each of them once.

    A problem id that stands for two different gold answers raises one too.
    """
    missing, broken = find_bad_golds(problems, pool)
    if missing:
        names = [problem.problem_id for problem in missing]
        raise ValueError(f"{_problems(names)} without a gold answer: add the answers, or leave the problems out")
    if broken:
        raise ValueError(
            f"{_problems([problem.problem_id for problem in broken])} with a gold answer that cannot be parsed, the "
            f"first {(broken[0].answer or '')[:80]!r}: correct the answers, or leave the problems out with"
            " --on-bad-gold skip"
        )


def find_bad_golds(problems: Sequence[Problem], pool: GraderPool) -> tuple[list[Problem], list[Problem]]:
    """The problems without a gold answer, and those whose gold answer cannot be parsed, each of them once.

    Problems that a grader scores need none. Raises ValueError for a problem id with two different gold answers.
    """
    golds = {problem.problem_id: problem for problem in problems}
    clashing = [problem.problem_id for problem in problems if problem.answer != golds[problem.problem_id].answer]
    if clashing:
        raise ValueError(f"{_problems(clashing)} with different gold answers: give each problem an id of its own")
    compared = [problem for problem in golds.values() if not choose_grader(problem, pool)]
    missing = [problem for problem in compared if not (problem.answer or "").strip()]
    with_gold = [problem for problem in compared if (problem.answer or "").strip()]
    parsable = pool.are_parsable([problem.answer or "" for problem in with_gold])
    return missing, [problem for problem, fine in zip(with_gold, parsable, strict=True) if not fine]


def choose_grader(problem: Problem, pool: GraderPool) -> str:
    """The function that scores the problem's answers; "" where they are compared with the gold answer."""
    return GENERATOR_GRADER if "generator" in problem.metadata else pool.grader


def _from_score(result: Result, grader: str, problem: Problem, answer: str) -> Graded:
    if isinstance(result, str):
        return Graded(result, answer, 0.0)
    if not 0 <= result <= 1:  # NaN fails it too
        raise ValueError(
            f"the grader {grader} gives {result:g} for the answer {answer[:80]!r} to {problem.problem_id},"
            " which is outside [0, 1]: leave the problem out"
        )
    return Graded("correct" if result >= _FULL_SCORE else "incorrect", answer, result)


def _problems(problem_ids: Sequence[str]) -> str:
    names = list(Counter(problem_ids))
    return f"{len(names)} problem{'s' * (len(names) > 1)} ({format_names(names)})"
