"""Names and values on their way into DuckDB and out of it."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa


def matching_ids(texts: dict[int, str], operator: str, value: str) -> list[int]:
    """The ids whose text passes, without regard to the spaces around it."""
    if operator == "contains":
        return [token_id for token_id, text in texts.items() if value in text]
    if operator not in ("=", "!="):
        raise ValueError(f"the text of a token has no order: use =, != or contains, not {operator}")
    return [token_id for token_id, text in texts.items() if (text.strip() == value.strip()) == (operator == "=")]


def parse_value(kind: pa.DataType, text: str, column: str) -> Any:
    """The text of a filter as a value of the column."""
    if pa.types.is_boolean(kind):
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{column} is true or false, not {text!r}")
        return text.lower() == "true"
    if is_number(kind):
        try:
            return float(text) if pa.types.is_floating(kind) else int(text)
        except ValueError:
            raise ValueError(f"{column} is a number, and {text!r} is none") from None
    return text


def is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def as_json(value: Any) -> Any:
    """As JSON: numbers that are not finite as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [as_json(item) for item in value]
    return value


def probability(logprob: float | None) -> float | None:
    return None if logprob is None or math.isnan(logprob) else math.exp(logprob)


def narrow(where: str, condition: str) -> str:
    return f"{where} AND {condition}" if where else f"WHERE {condition}"


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
