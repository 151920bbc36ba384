"""A problem, whatever it comes from, and the file of a run that holds its problems."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..run_dir import atomic


@dataclass(frozen=True)
class Problem:
    """What is asked, and what is needed to judge an answer."""

    problem_id: str
    """the same for the same problem, whatever is chosen beside it"""
    question: str
    answer: str | None = None
    """the right one, as its source words it"""
    source: str = ""
    difficulty: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    """what the source's own scorer needs besides; JSON"""


def question_id(source: str, question: str) -> str:
    """An id that depends on the two alone."""
    return f"{source}/{hashlib.sha256(question.encode()).hexdigest()[:12]}"


def write_problems(path: Path, problems: Iterable[Problem]) -> None:
    """One JSON object a line, whole or not at all. Raises ValueError for metadata that is not strict JSON."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for problem in problems:
            try:
                file.write(json.dumps(dataclasses.asdict(problem), ensure_ascii=False, allow_nan=False) + "\n")
            except (TypeError, ValueError) as error:
                raise ValueError(f"the problem {problem.problem_id} cannot be written to {path}: {error}") from None


def read_problems(path: Path) -> list[Problem]:
    """What `write_problems` wrote. Raises ValueError for any other file."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise ValueError(f"there is no file of problems {path}") from None
    problems = []
    for number, line in enumerate(lines, 1):
        if line:
            try:
                problems.append(Problem(**json.loads(line)))
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"{path}:{number}: not a problem that ssdfast wrote ({error}): start the run again with --overwrite"
                ) from None
    return problems
