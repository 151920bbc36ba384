"""Text from a model is hostile: the only forms in which it may enter the page."""

from __future__ import annotations

import json
import unicodedata
from typing import Any, TypeVar

from pydantic import BaseModel

Model = TypeVar("Model", bound=BaseModel)

MAX_CHARACTERS = 80
MAX_TEXT = 4000  # a verdict has some 1,500 characters, and a setting may be a long path

# Controls, format characters (bidi among them), surrogates, private use, line and paragraph separators, odd spaces.
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp", "Zs"}
_PLAIN_WHITESPACE = " \n\t"


def inert(text: str, limit: int = MAX_CHARACTERS) -> str:
    """The text with nothing in it that hides, reorders or breaks its surroundings.

    Every invisible character becomes its code point, as in ⟨U+202E⟩; space, newline and tab stay. Text longer than
    ``limit`` characters is cut, with a note of how many are missing.
    """
    shown = "".join(_visible(character) for character in text[:limit])
    missing = len(text) - limit
    return f"{shown}… [{missing:,} more characters]" if missing > 0 else shown


def inert_tree(value: Any) -> Any:
    """The same JSON value with every string and key inert."""
    if isinstance(value, str):
        return inert(value, MAX_TEXT)
    if isinstance(value, list):
        return [inert_tree(item) for item in value]
    if isinstance(value, dict):
        return {inert(key, MAX_TEXT): inert_tree(item) for key, item in value.items()}
    return value


def inert_record(record: Model) -> Model:
    """The same values with every string and key inert."""
    return record.model_validate(inert_tree(record.model_dump(mode="json", exclude_unset=True)))


def embeddable_json(value: Any) -> str:
    """JSON that can stand inside a script element: ASCII alone, without <, > and &."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _visible(character: str) -> str:
    if character in _PLAIN_WHITESPACE or unicodedata.category(character) not in _INVISIBLE:
        return character
    return f"⟨U+{ord(character):04X}⟩"
