r"""The answer that a completion states: the last balanced ``\boxed{...}`` outside its thinking part.

Everything here takes time linear in the text and never recurses, for a model's text may be a megabyte of braces.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class ExtractionRules:
    """Where an answer is looked for."""

    thinking: bool = True
    """leave the thinking part out"""
    starts_thinking: bool = False
    """the prompt has opened the thinking part already, so a completion with no closing tag is all thinking"""
    open_tag: str = "<think>"
    close_tag: str = "</think>"
    last_number: bool = False
    """where there is no box, take the last number"""
    letter: bool = False
    """where there is no box, take the letter of a choice ("The answer is (D)")"""


DEFAULT = ExtractionRules()

_BRACES = re.compile(r"(?P<box>\\{1,2}(?:boxed|fbox)\s*\{)|\\[\\{}]|(?P<open>\{)|(?P<close>\})")
_SPACE = re.compile(r"\s*")
_FRACTION = r"\\[dt]?frac\s?\{[0-9]{1,99}\}\s?\{[0-9]{1,99}\}"
_DECIMAL = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?(?:/[0-9]+)?|\.[0-9]+"
_NUMBER = re.compile(rf"(?:(?<![\w)\]}}.])[-−])?(?:{_FRACTION}|(?<![0-9.])(?:{_DECIMAL})(?:\\?%)?)")
_LETTER = re.compile(
    r"(?i:answer|option|choice)(?:\s{1,3}is)?\s{0,3}:?\s{0,3}(?:\*\*|\$|\\text(?:bf)?\{|\s){0,4}"
    r"(?:\(([A-J])\)|([A-J])(?![A-Za-z'’]))"
)


def extract(text: str, rules: ExtractionRules = DEFAULT) -> str | None:
    """The answer as the text words it, without the box; None where it states none."""
    return stated(text, rules)[0]


def stated(text: str, rules: ExtractionRules = DEFAULT) -> tuple[str | None, bool]:
    """The answer as `extract` gives it, and whether a box holds it."""
    outside = outside_thinking(text, rules) if rules.thinking else text
    boxed = last_boxed(outside)
    answer = boxed
    if answer is None and rules.letter:
        answer = last_letter(outside)
    if answer is None and rules.last_number:
        answer = last_number(outside)
    return answer, boxed is not None


def outside_thinking(text: str, rules: ExtractionRules = DEFAULT) -> str:
    """What follows the last closing tag, up to a tag that opens again.

    Without a closing tag it is the whole text where nothing opened a thinking part, and nothing where something did.
    """
    close = text.rfind(rules.close_tag)
    if close >= 0:
        return text[close + len(rules.close_tag) :].partition(rules.open_tag)[0]
    return "" if rules.starts_thinking or rules.open_tag in text else text


def last_boxed(text: str) -> str | None:
    r"""What the last balanced ``\boxed{...}`` or ``\fbox{...}`` holds; of nested ones, the outer.

    A box that the text breaks off in is passed over for the balanced one before it: the earlier answer was stated in
    full. So is an empty one, which quotes the instruction. None where no other box is left.
    """
    open_boxes: list[int | None] = []  # where the content of each open brace begins, None for a brace that is no box
    found: list[tuple[int, int]] = []
    for match in _BRACES.finditer(text):
        if match["box"]:
            open_boxes.append(match.end())
        elif match["open"]:
            open_boxes.append(None)
        elif match["close"] and open_boxes:
            start = open_boxes.pop()
            if start is not None and _SPACE.match(text, start).end() < match.start():  # type: ignore[union-attr]
                while found and found[-1][0] > start:
                    found.pop()
                found.append((start, match.start()))
    return text[slice(*found[-1])].strip() if found else None


def last_number(text: str) -> str | None:
    r"""The last number: an integer, a decimal, a fraction (``1/2`` or ``\frac{1}{2}``), with its sign and percent."""
    found = deque(_NUMBER.finditer(text), maxlen=1)
    return found[0].group() if found else None


def last_letter(text: str) -> str | None:
    """The capital letter, A to J, that the last "answer is", "option" or "choice" is followed by."""
    found = deque(_LETTER.finditer(text), maxlen=1)
    return (found[0][1] or found[0][2]) if found else None
