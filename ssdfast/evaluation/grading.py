"""From a problem and a completion's text to a verdict.

with Checkers() as checkers:
    check_golds(problems, checkers)
    judged = judge_all([(problem, text), ...], checkers)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..problems.problem import Problem
from .answers.equal import Verdict
from .extract import DEFAULT, ExtractionRules, extract
from .grader_pool import Checkers, Result

_NAMED = 5
_FULL_SCORE = 1 - 1e-9


@dataclass(frozen=True)
class Judged:
    """What an answer is worth."""

    verdict: Verdict
    extracted: str | None
    """as the completion words it; None where it states no answer"""
    score: float
    """1 for a correct answer, 0 for any other; what a generator's own scorer gives may lie between"""


def judge(problem: Problem, text: str, checkers: Checkers, rules: ExtractionRules = DEFAULT) -> Judged:
    """The verdict on one completion. Raises ValueError like `judge_all`."""
    return judge_all([(problem, text)], checkers, rules)[0]


def judge_all(
    samples: Sequence[tuple[Problem, str]],
    checkers: Checkers,
    rules: ExtractionRules = DEFAULT,
    told: Callable[[int], object] = lambda n: None,
) -> list[Judged]:
    """The verdict on each completion, in order; `told` hears of those finished.

    Problems of a reasoning-gym generator are scored by it, all others compared with their gold answer.
    Raises ValueError that names the problems whose gold answer is missing or cannot be read, or whose scorer gives no
    number of 0 to 1.
    """
    return judge_answers([(problem, extract(text, rules)) for problem, text in samples], checkers, told)


def judge_answers(
    answers: Sequence[tuple[Problem, str | None]], checkers: Checkers, told: Callable[[int], object] = lambda n: None
) -> list[Judged]:
    """As `judge_all`, of answers that are extracted already, None where a completion states none."""
    check_golds([problem for problem, _ in answers], checkers)
    stated = [(problem, answer) for problem, answer in answers if answer is not None]
    told(len(answers) - len(stated))
    scores = iter(checkers.score([one for one in stated if _has_scorer(one[0])], told))
    compared = [(problem.answer or "", answer) for problem, answer in stated if not _has_scorer(problem)]
    verdicts = iter(checkers.check(compared, told))
    judged = []
    for problem, answer in answers:
        if answer is None:
            judged.append(Judged("no_answer", None, 0.0))
        elif _has_scorer(problem):
            judged.append(_scored(next(scores), problem, answer))
        else:
            verdict = next(verdicts)
            judged.append(Judged(verdict, answer, float(verdict == "correct")))
    return judged


def check_golds(problems: Sequence[Problem], checkers: Checkers) -> None:
    """Raises ValueError that names the problems whose gold answer is missing or cannot be read, and none of them twice.

    A problem id that stands for two different gold answers is refused too.
    """
    golds = {problem.problem_id: problem for problem in problems}
    clashing = [problem.problem_id for problem in problems if problem.answer != golds[problem.problem_id].answer]
    if clashing:
        raise ValueError(f"{_named(clashing)} with different gold answers: give each problem an id of its own")
    compared = [problem for problem in golds.values() if not _has_scorer(problem)]
    missing = [problem.problem_id for problem in compared if not (problem.answer or "").strip()]
    if missing:
        raise ValueError(f"{_named(missing)} without a gold answer: add the answers, or leave the problems out")
    readable = checkers.readable([problem.answer or "" for problem in compared])
    broken = [problem for problem, fine in zip(compared, readable, strict=True) if not fine]
    if broken:
        raise ValueError(
            f"{_named([problem.problem_id for problem in broken])} with a gold answer that cannot be read, the first "
            f"{(broken[0].answer or '')[:80]!r}: mend the answers, or leave the problems out"
        )


def _has_scorer(problem: Problem) -> bool:
    return "generator" in problem.metadata


def _scored(result: Result, problem: Problem, answer: str) -> Judged:
    if isinstance(result, str):
        return Judged(result, answer, 0.0)
    if not 0 <= result <= 1:  # NaN fails it too
        raise ValueError(
            f"the scorer of {problem.source} gives {result:g} for the answer {answer[:80]!r} to {problem.problem_id},"
            " which is no number of 0 to 1: leave the problem out"
        )
    return Judged("correct" if result >= _FULL_SCORE else "wrong", answer, result)


def _named(problem_ids: Sequence[str]) -> str:
    names = list(Counter(problem_ids))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} problem{'s' * (len(names) > 1)} ({', '.join(names[:_NAMED])}{more})"
