"""A problem of any source, and the file of a run with its problems."""

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
    """A question, and what is needed to grade an answer."""

    problem_id: str
    """The same for the same problem in every run."""
    question: str
    answer: str | None = None
    """The correct answer, as its source words it."""
    source: str = ""
    difficulty: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    """What the source's own scorer needs in addition, as JSON."""


def question_id(source: str, question: str) -> str:
    """An id that depends on the two arguments only."""
    return f"{source}/{hashlib.sha256(question.encode()).hexdigest()[:12]}"


def write_problems(path: Path, problems: Iterable[Problem]) -> None:
    """Write one JSON object per line, atomically. Raises ValueError for metadata that is not strict JSON."""
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
