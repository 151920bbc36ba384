"""Problems out of rows, as files and datasets have them: columns, answers, ids, and lines that are no problem."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..config import ProblemsConfig
from ..progress import say
from .duplicates import normalise
from .problem import Problem, question_id

Row = tuple[int, dict[str, Any] | str]
"""number of the line, and the row, or why there is none"""

USUAL = {
    "question": ("question", "problem", "prompt", "input"),
    "answer": ("answer", "final_answer", "target", "solution"),
    "problem_id": ("problem_id", "id", "unique_id", "uuid"),
    "difficulty": ("difficulty", "level"),
    "source": ("source", "subject", "dataset"),
}
_NAMED = 10
"""malformed lines to say something about"""


@dataclass(frozen=True)
class Read:
    problems: list[Problem]
    malformed: list[str]
    """``file:line: why``"""


def problems_of(rows: Iterable[Row], where: str, name: str, config: ProblemsConfig) -> Read:
    """The problem of each row.

    `where` stands before the line numbers of messages; `name` is the source of a row that names none, and the first
    half of an id that is made up. Raises ValueError for a column that is not there, a line that is no problem (unless
    it is to be skipped), an id with two questions, and for no problem at all.
    """
    rows = list(rows)
    good = [row for _, row in rows if isinstance(row, dict)]
    columns = _columns(list(dict.fromkeys(column for row in good for column in row)), where, config) if good else {}
    problems: list[Problem] = []
    malformed: list[str] = []
    first_line: dict[str, tuple[int, str]] = {}
    for line, row in rows:
        why = row if isinstance(row, str) else _complaint(row, columns)
        if why:
            if config.on_malformed == "error":
                raise ValueError(f"{where}:{line}: {why}: fix it, or problems.on_malformed=skip")
            malformed.append(f"{where}:{line}: {why}")
            continue
        assert isinstance(row, dict)
        problem = _problem(row, columns, name)
        said = normalise(problem.question)
        earlier_line, earlier_said = first_line.setdefault(problem.problem_id, (line, said))
        if earlier_said != said:
            raise ValueError(
                f"{where}:{line}: the id {problem.problem_id!r} is that of another question in line {earlier_line}: "
                "give each problem its own, or name another column in problems.columns.problem_id"
            )
        problems.append(problem)
    if not problems:
        raise ValueError(f"{where} holds no problem ({len(malformed)} malformed lines): name a source that does")
    _say_skipped(malformed)
    return Read(problems, malformed)


def compact(value: Any) -> str | None:
    """A value as text: strings as they are, all else as JSON without spaces; None for nothing or an empty text."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or value == "" or value != value:  # a missing number is NaN in Parquet
        return None
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str)


def _columns(found: list[str], where: str, config: ProblemsConfig) -> dict[str, str]:
    """The column of each field that has one. Raises ValueError where one is named or needed."""
    columns = {}
    for field, usual in USUAL.items():
        named = getattr(config.columns, field)
        column = named or next((name for name in usual if name in found), None)
        if column in found:
            columns[field] = column
        elif named:
            raise ValueError(
                f"{where} has no column {named!r}: set problems.columns.{field} to one of {', '.join(found)}"
            )
        elif field == "question":
            raise ValueError(
                f"{where} has none of the columns {', '.join(usual)}: set problems.columns.question to one of "
                f"{', '.join(found)}"
            )
    return columns


def _complaint(row: dict[str, Any], columns: dict[str, str]) -> str:
    """Why a row is no problem; empty where it is one."""
    column = columns["question"]
    question = row.get(column)
    if question is None:
        return f"no {column!r}"
    if not isinstance(question, str):
        return f"{column!r} is not a text but {type(question).__name__}"
    if not question.strip():
        return f"{column!r} is empty"
    broken = [name for name in columns.values() if not _is_unicode(compact(row.get(name)) or "")]
    return f"{broken[0]!r} holds half a surrogate pair" if broken else ""


def _problem(row: dict[str, Any], columns: dict[str, str], name: str) -> Problem:
    fields = {field: compact(row.get(column)) for field, column in columns.items()}
    question = row[columns["question"]]
    answer = fields.get("answer")
    if answer is not None and "####" in answer:  # GSM8K: the working, then #### and the answer
        answer = answer.rpartition("####")[2].strip() or None
    metadata: dict[str, Any] = {}
    for column, value in row.items():
        if column in columns.values():
            continue
        if column == "metadata" and isinstance(value, dict):  # the problems of another run
            metadata |= _json_only(value)
        else:
            metadata |= _json_only({column: value})
    return Problem(
        problem_id=fields.get("problem_id") or question_id(name, question),
        question=question,
        answer=answer,
        source=fields.get("source") or name,
        difficulty=fields.get("difficulty"),
        metadata=metadata,
    )


def _json_only(values: dict[str, Any]) -> dict[str, Any]:
    """What of `values` JSON can hold, as it comes back from there."""
    kept: dict[str, Any] = {}
    for key, value in values.items():
        try:
            text = json.dumps({key: value}, allow_nan=False, ensure_ascii=False)
            if _is_unicode(text):
                kept |= json.loads(text)
        except (TypeError, ValueError, RecursionError):
            continue
    return kept


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold it: JSON can escape half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _say_skipped(malformed: list[str]) -> None:
    for what in malformed[:_NAMED]:
        say(f"skipped {what}")
    if len(malformed) > _NAMED:
        say(f"skipped {len(malformed) - _NAMED:,} more")
