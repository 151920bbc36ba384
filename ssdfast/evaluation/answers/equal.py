r"""Whether an answer is the right one.

``check`` has no time limit and may use any amount of memory: run it through `pool`, except on text of your own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

from . import wording
from .latex import Unreadable, expression, has_imaginary, same_expression
from .normalize import clean
from .numeric import Number, number, same_number
from .parse import read
from .types import Based, Equation, Items, Reading, Region, Residue, Value, Words, as_region, as_sympy

Verdict = Literal["correct", "wrong", "no_answer", "unparsable", "timed_out"]
_MEASURED = re.compile(r"(.+) (?:[mgshLNJWVAKCF])(?:\s*\^\s*\{?[23]\}?)?")
"""a number and a unit of one letter, which beside a gold answer that is a number is no variable"""
LONGEST = 4000
"""characters of an answer that is looked at; a longer one is unparsable, unless it is the gold answer to the letter"""


def check(gold: str, answer: str) -> Verdict:
    """ "correct", "wrong" or "unparsable". Raises Unreadable for a gold answer that cannot be read."""
    if (quick := quick_check(gold, answer)) is not None:
        return quick
    spelled = clean(answer)
    complex_numbers = has_imaginary(clean(gold)) or has_imaginary(spelled)
    golds = _gold(gold, complex_numbers)
    if any(isinstance(one, Words) and one.said == wording.sentence(spelled) for one in golds):
        return "correct"
    if (chosen := wording.choice(clean(gold))) and chosen == wording.choice(spelled):
        return "correct"
    try:
        found = read(spelled, complex_numbers)
    except Unreadable:
        return "unparsable"
    return "correct" if any(same(one, found) for one in golds) else "wrong"


def quick_check(gold: str, answer: str) -> Verdict | None:
    """The verdict where it needs no parser: equal texts, two plain numbers, an answer too long. None elsewhere."""
    if gold.strip() == answer.strip():
        return "correct"
    if len(answer) > LONGEST:
        return "unparsable"
    ours, theirs = _number(gold), number(clean(answer)) if len(answer) < 100 else None
    if ours and theirs:
        return "correct" if same_number(ours, theirs) else "wrong"
    return None


@lru_cache(maxsize=8192)
def _number(gold: str) -> Number | None:
    return number(clean(gold)) if len(gold) < 100 else None


def readable(gold: str) -> bool:
    """Whether a gold answer can be compared with anything."""
    if len(gold) > LONGEST:
        return False
    try:
        return bool(_gold(gold, has_imaginary(clean(gold))))
    except Unreadable:
        return False


@lru_cache(maxsize=8192)
def _gold(gold: str, complex_numbers: bool) -> tuple[Reading, ...]:
    found: list[Reading] = []
    for spelling in wording.wordings(gold):
        try:
            found.append(read(clean(spelling), complex_numbers))
        except Unreadable:
            if spelling == gold:
                raise
    return tuple(found)


def same(gold: Reading, answer: Reading) -> bool:
    """Whether two readings say the same."""
    if isinstance(gold, Words) or isinstance(answer, Words):
        return gold == answer
    if isinstance(gold, Based) or isinstance(answer, Based):
        return _same_based(gold, answer)
    if isinstance(gold, Residue) or isinstance(answer, Residue):
        return _same_residue(gold, answer)
    if isinstance(gold, Equation) and isinstance(answer, Equation):
        return _same_equation(gold, answer)
    if isinstance(gold, Equation):
        return bool(gold.name) and same(gold.value, answer)
    if isinstance(answer, Equation):
        return same(gold, answer.value)
    if isinstance(gold, Region) or isinstance(answer, Region):
        return _same_region(gold, answer)
    if isinstance(gold, Value) and isinstance(answer, Value):
        return _same_value(gold, answer)
    return _same_items(gold, answer)


def _same_based(gold: Reading, answer: Reading) -> bool:
    if isinstance(gold, Based) and isinstance(answer, Based):
        return gold == answer
    based, other = (gold, answer) if isinstance(gold, Based) else (answer, gold)
    return isinstance(based, Based) and isinstance(other, Value) and other.text.lstrip("0") == based.digits


def _same_residue(gold: Reading, answer: Reading) -> bool:
    if not (isinstance(gold, Residue) and isinstance(answer, Residue)):
        return False
    named_otherwise = gold.name and answer.name and gold.name != answer.name
    return not named_otherwise and (gold.value, gold.modulus) == (answer.value, answer.modulus)


def _same_equation(gold: Equation, answer: Equation) -> bool:
    if gold.name and gold.name == answer.name:
        return same(gold.value, answer.value)
    try:
        ours, theirs = expression(gold.text, False), expression(answer.text, False)
    except Unreadable:
        return not (gold.name and answer.name) and same(gold.value, answer.value)
    return same_expression(ours, theirs)


def _same_region(gold: Reading, answer: Reading) -> bool:
    if isinstance(gold, Region) and isinstance(answer, Region):
        if gold.name and answer.name and gold.name != answer.name:
            return False
        if gold.sympy is None or answer.sympy is None:
            both = gold.relation is not None and answer.relation is not None
            return both and same_expression(gold.relation, answer.relation)
    ours, theirs = as_region(gold), as_region(answer)
    if ours is None or theirs is None:
        return False
    return bool(ours == theirs) or same_expression(ours, theirs)


def _same_value(gold: Value, answer: Value) -> bool:
    if gold.unit and answer.unit and gold.unit != answer.unit:
        return False
    if gold.number and answer.number:
        return same_number(gold.number, answer.number)
    if gold.number and (measured := _MEASURED.fullmatch(answer.text)) and (count := number(measured[1])):
        return same_number(gold.number, count)
    ours, theirs = as_sympy(gold), as_sympy(answer)
    if same_expression(ours, theirs):
        return True
    if "degree" in (gold.unit, answer.unit) and gold.unit != answer.unit:
        from sympy import pi

        ours, theirs = (one * pi / 180 if unit else one for one, unit in ((ours, gold.unit), (theirs, answer.unit)))
        return same_expression(ours, theirs)
    return False


def _same_items(gold: Reading, answer: Reading) -> bool:
    if isinstance(gold, Value) or isinstance(answer, Value):
        return _same_alone(gold, answer)
    assert isinstance(gold, Items)
    assert isinstance(answer, Items)
    kinds = {gold.kind, answer.kind}
    if kinds == {"tuple", "set"}:
        return False
    if "tuple" in kinds:
        if gold.kind == answer.kind and "" not in (gold.brackets, answer.brackets) and not _alike(gold, answer):
            return False
        return len(gold.items) == len(answer.items) and all(map(same, gold.items, answer.items))
    ours, theirs = gold.items, answer.items
    if "set" in kinds:
        ours, theirs = _distinct(ours, same), _distinct(theirs, same)
    return len(ours) == len(theirs) and _matched(ours, theirs)


def _alike(gold: Items, answer: Items) -> bool:
    """[1, 2] is no pair (1, 2); x=1, y=2 is one, and is not a=1, b=2."""
    named = gold.brackets[0] == "=", answer.brackets[0] == "="
    return any(named) != all(named) or gold.brackets == answer.brackets


def _same_alone(gold: Reading, answer: Reading) -> bool:
    """A set of one value and the value; a tuple and a matrix of one row or column."""
    items, other = (gold, answer) if isinstance(gold, Items) else (answer, gold)
    assert isinstance(items, Items)
    assert isinstance(other, Value)
    if len(items.items) == 1:
        return same(items.items[0], other)
    shape = getattr(other.sympy, "shape", None)
    if items.kind != "tuple" or not shape or 1 not in shape or len(items.items) != shape[0] * shape[1]:
        return False
    return all(
        isinstance(item, Value) and same_expression(as_sympy(item), entry)
        for item, entry in zip(items.items, other.sympy, strict=True)
    )


def _distinct(items: Sequence[Reading], equal: Callable[[Reading, Reading], bool]) -> tuple[Reading, ...]:
    kept: list[Reading] = []
    for item in items:
        if not any(equal(one, item) for one in kept):
            kept.append(item)
    return tuple(kept)


def _matched(gold: Sequence[Reading], answer: Sequence[Reading]) -> bool:
    left = list(answer)
    for one in gold:
        found = next((at for at, other in enumerate(left) if same(one, other)), None)
        if found is None:
            return False
        left.pop(found)
    return True
