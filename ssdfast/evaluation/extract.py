r"""The answer that a completion states: the last balanced ``\boxed{...}`` outside its thinking part.

Everything here takes time linear in the text and never recurses, for a model's text may be a megabyte of braces.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from .answers.boxed import boxed_answer


@dataclass(frozen=True)
class ExtractionRules:
    """How an answer is extracted."""

    strip_thinking: bool = True
    """Ignore boxes in the thinking part."""
    prompt_opens_thinking: bool = False
    """The prompt ends inside a thinking part, so a completion without a closing tag is all thinking."""
    think_start: str = "<think>"
    think_end: str = "</think>"
    fallback_last_number: bool = False
    """Take the last number where there is no box."""
    fallback_choice_letter: bool = False
    """Take the letter of a choice ("The answer is (D)") where there is no box."""


DEFAULT = ExtractionRules()
FALLBACKS = ("fallback_last_number", "fallback_choice_letter")
"""The rules that find an answer where there is no box."""

_FRACTION = r"\\[dt]?frac\s?\{[0-9]{1,99}\}\s?\{[0-9]{1,99}\}"
_DECIMAL = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?(?:/[0-9]+)?|\.[0-9]+"
_NUMBER = re.compile(rf"(?:(?<![\w)\]}}.])[-−])?(?:{_FRACTION}|(?<![0-9.])(?:{_DECIMAL})(?:\\?%)?)")
_LETTER = re.compile(
    r"(?i:answer|option|choice)(?:\s{1,3}is)?\s{0,3}:?\s{0,3}(?:\*\*|\$|\\text(?:bf)?\{|\s){0,4}"
    r"(?:\(([A-J])\)|([A-J])(?![A-Za-z'’]))"
)


def extract(text: str, rules: ExtractionRules = DEFAULT) -> str | None:
    """The answer as the text words it, without the box; None where the text states none."""
    return extract_with_box(text, rules)[0]


def extract_with_box(text: str, rules: ExtractionRules = DEFAULT) -> tuple[str | None, bool]:
    """The answer as `extract` gives it, and whether it is from a box."""
    outside = outside_thinking(text, rules) if rules.strip_thinking else text
    boxed = boxed_answer(outside)
    answer = boxed
    if answer is None and rules.fallback_choice_letter:
        answer = last_letter(outside)
    if answer is None and rules.fallback_last_number:
        answer = last_number(outside)
    return answer, boxed is not None


def outside_thinking(text: str, rules: ExtractionRules = DEFAULT) -> str:
    """The text after the last closing tag, up to a tag that opens a thinking part again.

    Without a closing tag it is the whole text where nothing opened a thinking part, and empty where something did.
    """
    close = text.rfind(rules.think_end)
    if close >= 0:
        return text[close + len(rules.think_end) :].partition(rules.think_start)[0]
    return "" if rules.prompt_opens_thinking or rules.think_start in text else text


def last_number(text: str) -> str | None:
    r"""The last number: an integer, a decimal, a fraction (``1/2`` or ``\frac{1}{2}``), with its sign and percent."""
    matches = deque(_NUMBER.finditer(text), maxlen=1)
    return matches[0].group() if matches else None


def last_letter(text: str) -> str | None:
    """The capital letter, A to J, after the last "answer is", "option" or "choice"."""
    matches = deque(_LETTER.finditer(text), maxlen=1)
    return (matches[0][1] or matches[0][2]) if matches else None
