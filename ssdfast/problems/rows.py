"""Problems from the rows of files and datasets: columns, answers, ids, and malformed lines."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..config import ProblemsConfig
from .columns import ALIASES, column_of
from .duplicates import normalise
from .layouts import problem_row
from .problem import Problem, question_id

_log = logging.getLogger(__name__)

Row = tuple[int, dict[str, Any] | str]
"""The line number, and the row or the reason why it is malformed."""

_LISTED = 10
"""The number of malformed lines that are logged one by one."""


@dataclass(frozen=True)
class Read:
    problems: list[Problem]
    malformed: list[str]
    """``file:line: reason``"""


def parse_rows(rows: Iterable[Row], where: str, name: str, config: ProblemsConfig) -> Read:
    """The problem of each row.

    where: precedes the line number in messages. name: the source of rows without one, and the prefix of generated ids.
    Raises ValueError for a missing column, a malformed line where problems.on_malformed is error, an id with two
    questions, and where there is no problem.
    """
    rows = [(line, _known_layout(row, config)) for line, row in rows]
    good = [row for _, row in rows if isinstance(row, dict)]
    columns = _columns(list(dict.fromkeys(column for row in good for column in row)), where, config) if good else {}
    problems: list[Problem] = []
    malformed: list[str] = []
    first_line: dict[str, tuple[int, str]] = {}
    for line, row in rows:
        reason = row if isinstance(row, str) else _malformed_because(row, columns)
        if reason:
            if config.on_malformed == "error":
                raise ValueError(f"{where}:{line}: {reason}: fix it, or problems.on_malformed=skip")
            malformed.append(f"{where}:{line}: {reason}")
            continue
        assert isinstance(row, dict)
        problem = _problem(row, columns, name)
        text = normalise(problem.question)
        earlier_line, earlier_text = first_line.setdefault(problem.problem_id, (line, text))
        if earlier_text != text:
            raise ValueError(
                f"{where}:{line}: the id {problem.problem_id!r} also belongs to a question in line {earlier_line}:"
                " give each problem its own id, or set problems.columns.problem_id to another column"
            )
        problems.append(problem)
    if not problems:
        raise ValueError(f"{where} holds no problem ({len(malformed)} malformed lines): change problems.sources")
    _log_skipped(malformed)
    return Read(problems, malformed)


def compact(value: Any) -> str | None:
    """A value as text: strings unchanged, other values as compact JSON; None for a missing value or an empty text."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or value == "" or value != value:  # a missing number is NaN in Parquet
        return None
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str)


def _known_layout(row: dict[str, Any] | str, config: ProblemsConfig) -> dict[str, Any] | str:
    """The row as a row of problems, or the reason why it is malformed. Configured columns say how to read it."""
    if isinstance(row, str) or config.columns.question:
        return row
    try:
        return problem_row(row)
    except ValueError as error:
        return str(error)


def _columns(present: list[str], where: str, config: ProblemsConfig) -> dict[str, str]:
    """The column of each field that has one. Raises ValueError where a configured or required column is missing."""
    columns = {}
    for field in type(config.columns).model_fields:
        usual = ALIASES[field]
        named = getattr(config.columns, field)
        try:
            column = named or column_of(usual, present)
        except ValueError as error:
            raise ValueError(f"{where}: {error}, or name the right one in problems.columns.{field}") from None
        if column in present:
            columns[field] = column
        elif named:
            raise ValueError(
                f"{where} has no column {named!r}: set problems.columns.{field} to one of {', '.join(present)}"
            )
        elif field == "question":
            raise ValueError(
                f"{where} has none of the columns {', '.join(usual)}: set problems.columns.question to one of "
                f"{', '.join(present)}"
            )
    return columns


def _malformed_because(row: dict[str, Any], columns: dict[str, str]) -> str:
    """The reason why a row is malformed; empty for a valid row."""
    column = columns["question"]
    question = row.get(column)
    if question is None:
        return f"no {column!r}"
    if not isinstance(question, str):
        return f"{column!r} is not a text but {type(question).__name__}"
    if not question.strip():
        return f"{column!r} is empty"
    infinite = [name for name in columns.values() if isinstance(row.get(name), float) and math.isinf(row[name])]
    if infinite:
        return f"{infinite[0]!r} is infinite"
    broken = [name for name in columns.values() if not _is_unicode(compact(row.get(name)) or "")]
    return f"{broken[0]!r} holds half a surrogate pair" if broken else ""


def _problem(row: dict[str, Any], columns: dict[str, str], name: str) -> Problem:
    fields = {field: compact(row.get(column)) for field, column in columns.items()}
    question = row[columns["question"]]
    answer = fields.get("answer")
    if answer is not None and "####" in answer:  # GSM8K: the solution, then #### and the answer
        answer = answer.rpartition("####")[2].strip() or None
    metadata: dict[str, Any] = {}
    for column, value in row.items():
        if column in columns.values():
            continue
        if column == "metadata" and isinstance(value, dict):  # from problems.jsonl of another run
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
    """Those of `values` that JSON can represent, after a round trip."""
    representable: dict[str, Any] = {}
    for key, value in values.items():
        try:
            text = json.dumps({key: value}, allow_nan=False, ensure_ascii=False)
            if _is_unicode(text):
                representable |= json.loads(text)
        except (TypeError, ValueError, RecursionError):
            continue
    return representable


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can encode it: JSON can escape half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _log_skipped(malformed: list[str]) -> None:
    for line in malformed[:_LISTED]:
        _log.warning("skipped %s", line)
    if len(malformed) > _LISTED:
        _log.warning("skipped %d more", len(malformed) - _LISTED)
