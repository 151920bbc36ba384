r"""Whether an answer equals the gold answer.

`equal` has no time limit and may use much memory: run it through `grader_pool`, except on text of your own.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import lru_cache
from typing import Literal

from . import wording
from .compare import equal_answers
from .conventions import DEFAULT, Conventions
from .errors import Unparsable
from .normalize import normalize
from .numeric import Number, equal_number, is_reduced, number
from .parse import parse
from .types import Answer, Symbols, Value, Words

Grade = Literal["correct", "incorrect", "no_answer", "unparsable", "timeout"]
MAX_CHARACTERS = 4000
"""A longer answer is unparsable, unless it is the text of the gold answer."""
_DECIMAL_COMMA = re.compile(r"(-?[0-9]+),([0-9]{1,2}|[0-9]{4,})|(-?0),([0-9]+)")
_UNIT_LETTER = re.compile(r"(.*[0-9}])\s*\\text\{([a-zA-Z])\}(.*)", re.DOTALL)
_SIGN_OR_FEET = re.compile(r"[<>=]|[0-9]+\s*'[\s0-9']*")
_BALANCED = {"(": ")", "[": "]", "{": "}"}


def equal(gold: str, answer: str, conventions: Conventions = DEFAULT) -> Grade:
    """ "correct", "incorrect" or "unparsable". Raises Unparsable, a ValueError, for an unreadable gold answer."""
    if (quick := quick_grade(gold, answer, conventions)) is not None:
        return quick
    golds = _parse_gold(gold)
    text, spelled = normalize(answer), normalize(gold)
    if conventions.reduced_form and not is_reduced(text):
        return "incorrect"
    if spelled == text or (_symbols(spelled) == _symbols(text) and conventions.ignore_case):
        return "correct"
    if _same_choice(spelled, text, conventions):
        return "correct"
    if conventions.ignore_case and any(
        isinstance(tree, Words) and tree.text == wording.sentence(text) for tree in golds
    ):
        return "correct"
    if (decimal := _decimal_comma(text)) and conventions.decimal_comma and isinstance(golds[0], Value):
        text = decimal
    try:
        trees = _readings(text)
    except Unparsable:
        return "unparsable"
    if not any(equal_answers(gold_tree, tree, conventions) for gold_tree in golds for tree in trees):
        return "incorrect"
    if not conventions.ignore_case and any(isinstance(tree, Words) for tree in trees):
        return (
            "correct" if wording.sentence(spelled, conventions) == wording.sentence(text, conventions) else "incorrect"
        )
    return "correct"


def quick_grade(gold: str, answer: str, conventions: Conventions = DEFAULT) -> Grade | None:
    """The grade where it needs no parser: equal texts, two plain numbers, an answer too long. None elsewhere."""
    if gold.strip() == answer.strip() and not conventions.reduced_form:
        return "correct"
    if len(answer) > MAX_CHARACTERS:
        return "unparsable"
    gold_number = _gold_number(gold)
    if gold_number is None or len(answer) >= 100:
        return None
    text = normalize(answer)
    answer_number = number(text)
    if answer_number is None:
        return None
    if conventions.reduced_form and not is_reduced(text):
        return "incorrect"
    return "correct" if equal_number(gold_number, answer_number, conventions) else "incorrect"


@lru_cache(maxsize=8192)
def _gold_number(gold: str) -> Number | None:
    return number(normalize(gold)) if len(gold) < 100 else None


def is_parsable(gold: str) -> bool:
    """Whether a gold answer can be compared with anything."""
    if len(gold) > MAX_CHARACTERS:
        return False
    try:
        return bool(_parse_gold(gold))
    except Unparsable:
        return False


@lru_cache(maxsize=8192)
def _parse_gold(gold: str) -> tuple[Answer, ...]:
    trees: list[Answer] = []
    for spelling in wording.wordings(gold):
        text = normalize(spelling)
        try:
            trees += _readings(text)
        except Unparsable:
            if spelling != gold:
                continue
            if not _is_notation(text):
                raise
            trees.append(Symbols(_symbols(text)))
    return tuple(trees)


def _readings(text: str) -> list[Answer]:
    """The tree of a text, and further ones where it can be read in several ways. Raises Unparsable.

    A letter after a number may be a unit or a variable, and "none" may be the number of solutions.
    """
    trees = [parse(text)]
    if wording.plain(text).lower() == "none":
        trees.append(parse("0"))
    if match := _UNIT_LETTER.fullmatch(text):
        with suppress(Unparsable):
            trees.append(parse(f"{match[1]} {match[2]}{match[3]}"))
    return trees


def _symbols(text: str) -> str:
    """A text without spaces and word marks, in which two notations are compared token by token."""
    return re.sub(r"\{(\w)\}", r"\1", re.sub(r"\s", "", re.sub(r"\\(?:text|mathrm)\{([^{}]*)\}", r"\1", text)))


def _is_notation(text: str) -> bool:
    """Whether a text that is no mathematics the grammar knows may be a formula of another kind: its brackets match."""
    open_brackets: list[str] = []
    for character in re.sub(r"\\[\\{}]", "", text):
        if character in _BALANCED:
            open_brackets.append(_BALANCED[character])
        elif character in ")]}" and (not open_brackets or open_brackets.pop() != character):
            return False
    if _SIGN_OR_FEET.fullmatch(text):
        return True
    return not open_brackets and any(map(str.isalpha, text)) and not re.search(r"[-+*/=^_]\s*$", text)


def _same_choice(gold: str, answer: str, conventions: Conventions) -> bool:
    letter = wording.choice(gold, conventions)
    if letter and letter == wording.choice(answer, conventions):
        return True
    ours, theirs = wording.choices(gold, conventions), wording.choices(answer, conventions)
    separated = any(sign in text for text in (gold, answer) for sign in (",", ";", "\\text"))
    return ours is not None and ours == theirs and (separated or not any(letter.isascii() for letter in ours))


def _decimal_comma(text: str) -> str:
    match = _DECIMAL_COMMA.fullmatch(text)
    return f"{match[1] or match[3]}.{match[2] or match[4]}" if match else ""
