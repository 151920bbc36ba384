"""The names that fields of problems and completions have in files of any origin: one list for both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

ALIASES: dict[str, tuple[str, ...]] = {
    "question": ("question", "problem", "prompt", "input", "query"),
    "answer": (
        "answer", "final_answer", "target", "expected_answer", "ground_truth", "gold", "gold_answer",
        "reference_answer", "correct_answer", "solution",
    ),
    "problem_id": ("problem_id", "id", "unique_id", "uuid"),
    "difficulty": ("difficulty", "level"),
    "source": ("source", "subject", "dataset"),
    "text": (
        "text", "completion", "response", "output", "generation", "generated_text",
        "completions", "responses", "outputs", "generations",
    ),
    "sample": ("sample", "sample_id", "sample_index"),
    "tokens": ("tokens", "num_tokens", "completion_tokens"),
    "prompt": ("prompt", "messages"),
}  # fmt: skip
"""The first that is there is the field. Case does not matter, nor whether words are joined by _, - or a space."""


_ALL_ALIASES = {alias for aliases in ALIASES.values() for alias in aliases}


def lower(name: str) -> str:
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


def column_of(aliases: Sequence[str], present: Iterable[str]) -> str | None:
    """The first alias that is a column, as it is spelled there; None without one. Raises ValueError where two columns
    differ from it only in case."""
    present = list(present)
    for alias in aliases:
        if alias in present:
            return alias
        spelled = [name for name in present if lower(name) == alias]
        if len(spelled) > 1:
            raise ValueError(f"{spelled[0]!r} and {spelled[1]!r} differ only in case: rename one")
        if spelled:
            return spelled[0]
    return None


def lower_keys(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with its keys in lower case. Raises ValueError where two that may be the same field differ only in
    case."""
    values: dict[str, Any] = {}
    for key, value in row.items():
        name = lower(key)
        if name == key or values.get(name) is None:
            values[name] = value
        elif value is not None and name in _ALL_ALIASES and row.get(name) is None:
            raise ValueError(f"{key!r} and another key differ only in case: leave one of them out")
    return values


def value_of(row: Mapping[str, Any], field: str) -> Any:
    """The value of a field in a row with lower-case keys, None without one."""
    return next((row[name] for name in ALIASES[field] if row.get(name) is not None), None)
