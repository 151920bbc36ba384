"""CHAMP, as its package has it."""

import pytest

from ssdfast.problems import champ
from ssdfast.problems.duplicates import normalise

pytest.importorskip("champ_dataset")


def test_all_problems() -> None:
    problems = champ.load()
    assert len(problems) == len({problem.problem_id for problem in problems}) == 270
    assert all(problem.question and problem.answer and problem.source == "champ" for problem in problems)
    assert not any("@@" in problem.question + str(problem.answer) for problem in problems)  # its marks of formulas
    assert len({problem.metadata["category"] for problem in problems}) == 5
    assert min(problem.metadata["steps"] for problem in problems) >= 1
    assert len({normalise(problem.question) for problem in problems}) == 270
