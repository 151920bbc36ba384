r"""Whether an answer equals the gold answer.

``grade_answer`` has no time limit and may use any amount of memory: run it through `grader_pool`, except on text of
your own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from . import wording
from .latex import Unparsable, equal_expression, expression, has_imaginary
from .normalize import normalize
from .numeric import Number, equal_number, number
from .parse import parse
from .types import Answer, Based, Equation, Items, Region, Residue, Value, Words, as_region, as_sympy

Grade = Literal["correct", "incorrect", "no_answer", "unparsable", "timeout"]
_MEASURED = re.compile(r"(.+) (?:[mgshLNJWVAKCF])(?:\s*\^\s*\{?[23]\}?)?")
"""A number and a unit of one letter; where the gold answer is a number the letter is no variable."""
MAX_CHARACTERS = 4000
"""A longer answer is unparsable, unless it is the text of the gold answer."""


def grade_answer(gold: str, answer: str) -> Grade:
    """ "correct", "incorrect" or "unparsable". Raises Unparsable for a gold answer that cannot be parsed."""
    if (quick := quick_grade(gold, answer)) is not None:
        return quick
    text = normalize(answer)
    complex_numbers = has_imaginary(normalize(gold)) or has_imaginary(text)
    golds = _parse_gold(gold, complex_numbers)
    if any(isinstance(tree, Words) and tree.text == wording.sentence(text) for tree in golds):
        return "correct"
    if (letter := wording.choice(normalize(gold))) and letter == wording.choice(text):
        return "correct"
    try:
        tree = parse(text, complex_numbers)
    except Unparsable:
        return "unparsable"
    return "correct" if any(equal(gold_tree, tree) for gold_tree in golds) else "incorrect"


def quick_grade(gold: str, answer: str) -> Grade | None:
    """The grade where it needs no parser: equal texts, two plain numbers, an answer too long. None elsewhere."""
    if gold.strip() == answer.strip():
        return "correct"
    if len(answer) > MAX_CHARACTERS:
        return "unparsable"
    gold_number = _gold_number(gold)
    answer_number = number(normalize(answer)) if len(answer) < 100 else None
    if gold_number and answer_number:
        return "correct" if equal_number(gold_number, answer_number) else "incorrect"
    return None


@lru_cache(maxsize=8192)
def _gold_number(gold: str) -> Number | None:
    return number(normalize(gold)) if len(gold) < 100 else None


def is_parsable(gold: str) -> bool:
    """Whether a gold answer can be compared with anything."""
    if len(gold) > MAX_CHARACTERS:
        return False
    try:
        return bool(_parse_gold(gold, has_imaginary(normalize(gold))))
    except Unparsable:
        return False


@lru_cache(maxsize=8192)
def _parse_gold(gold: str, complex_numbers: bool) -> tuple[Answer, ...]:
    trees: list[Answer] = []
    for spelling in wording.wordings(gold):
        try:
            trees.append(parse(normalize(spelling), complex_numbers))
        except Unparsable:
            if spelling == gold:
                raise
    return tuple(trees)


def equal(gold: Answer, answer: Answer) -> bool:
    """Whether two parsed answers are equal."""
    if isinstance(gold, Words) or isinstance(answer, Words):
        return gold == answer
    if isinstance(gold, Based) or isinstance(answer, Based):
        return _equal_based(gold, answer)
    if isinstance(gold, Residue) or isinstance(answer, Residue):
        return _equal_residue(gold, answer)
    if isinstance(gold, Equation) and isinstance(answer, Equation):
        return _equal_equation(gold, answer)
    if isinstance(gold, Equation):
        return bool(gold.name) and equal(gold.value, answer)
    if isinstance(answer, Equation):
        return equal(gold, answer.value)
    if isinstance(gold, Region) or isinstance(answer, Region):
        return _equal_region(gold, answer)
    if isinstance(gold, Value) and isinstance(answer, Value):
        return _equal_value(gold, answer)
    return _equal_items(gold, answer)


def _equal_based(gold: Answer, answer: Answer) -> bool:
    if isinstance(gold, Based) and isinstance(answer, Based):
        return gold == answer
    based, other = (gold, answer) if isinstance(gold, Based) else (answer, gold)
    return isinstance(based, Based) and isinstance(other, Value) and other.text.lstrip("0") == based.digits


def _equal_residue(gold: Answer, answer: Answer) -> bool:
    if not (isinstance(gold, Residue) and isinstance(answer, Residue)):
        return False
    other_name = gold.name and answer.name and gold.name != answer.name
    return not other_name and (gold.value, gold.modulus) == (answer.value, answer.modulus)


def _equal_equation(gold: Equation, answer: Equation) -> bool:
    if gold.name and gold.name == answer.name:
        return equal(gold.value, answer.value)
    try:
        ours, theirs = expression(gold.text, False), expression(answer.text, False)
    except Unparsable:
        return not (gold.name and answer.name) and equal(gold.value, answer.value)
    return equal_expression(ours, theirs)


def _equal_region(gold: Answer, answer: Answer) -> bool:
    if isinstance(gold, Region) and isinstance(answer, Region):
        if gold.name and answer.name and gold.name != answer.name:
            return False
        if gold.sympy is None or answer.sympy is None:
            known = gold.relation is not None and answer.relation is not None
            return known and equal_expression(gold.relation, answer.relation)
    ours, theirs = as_region(gold), as_region(answer)
    if ours is None or theirs is None:
        return False
    return bool(ours == theirs) or equal_expression(ours, theirs)


def _equal_value(gold: Value, answer: Value) -> bool:
    if gold.unit and answer.unit and gold.unit != answer.unit:
        return False
    if gold.number and answer.number:
        return equal_number(gold.number, answer.number)
    if gold.number and (match := _MEASURED.fullmatch(answer.text)) and (count := number(match[1])):
        return equal_number(gold.number, count)
    ours, theirs = as_sympy(gold), as_sympy(answer)
    if equal_expression(ours, theirs):
        return True
    if "degree" in (gold.unit, answer.unit) and gold.unit != answer.unit:
        from sympy import pi

        ours, theirs = (
            angle * pi / 180 if unit else angle for angle, unit in ((ours, gold.unit), (theirs, answer.unit))
        )
        return equal_expression(ours, theirs)
    return False


def _equal_items(gold: Answer, answer: Answer) -> bool:
    if isinstance(gold, Value) or isinstance(answer, Value):
        return _equal_single(gold, answer)
    assert isinstance(gold, Items)
    assert isinstance(answer, Items)
    kinds = {gold.kind, answer.kind}
    if kinds == {"tuple", "set"}:
        return False
    if "tuple" in kinds:
        if (
            gold.kind == answer.kind
            and "" not in (gold.brackets, answer.brackets)
            and not _compatible_brackets(gold, answer)
        ):
            return False
        return len(gold.items) == len(answer.items) and all(map(equal, gold.items, answer.items))
    ours, theirs = gold.items, answer.items
    if "set" in kinds:
        ours, theirs = _distinct(ours), _distinct(theirs)
    return len(ours) == len(theirs) and _equal_in_any_order(ours, theirs)


def _compatible_brackets(gold: Items, answer: Items) -> bool:
    """[1, 2] is no pair (1, 2); x=1, y=2 is such a pair, and is not a=1, b=2."""
    named = gold.brackets[0] == "=", answer.brackets[0] == "="
    return any(named) != all(named) or gold.brackets == answer.brackets


def _equal_single(gold: Answer, answer: Answer) -> bool:
    """A set of one value and the value; a tuple and a matrix of one row or column."""
    items, other = (gold, answer) if isinstance(gold, Items) else (answer, gold)
    assert isinstance(items, Items)
    assert isinstance(other, Value)
    if len(items.items) == 1:
        return equal(items.items[0], other)
    shape = getattr(other.sympy, "shape", None)
    if items.kind != "tuple" or not shape or 1 not in shape or len(items.items) != shape[0] * shape[1]:
        return False
    return all(
        isinstance(item, Value) and equal_expression(as_sympy(item), entry)
        for item, entry in zip(items.items, other.sympy, strict=True)
    )


def _distinct(items: Sequence[Answer]) -> tuple[Answer, ...]:
    distinct: list[Answer] = []
    for item in items:
        if not any(equal(earlier, item) for earlier in distinct):
            distinct.append(item)
    return tuple(distinct)


def _equal_in_any_order(gold: Sequence[Answer], answer: Sequence[Answer]) -> bool:
    left = list(answer)
    for item in gold:
        index = next((index for index, other in enumerate(left) if equal(item, other)), None)
        if index is None:
            return False
        left.pop(index)
    return True
