"""Answers with words in them: quantities, lists of them, numbers and sets in words, sentences."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from fractions import Fraction

from . import named_sets, wording
from .containers import listed, permuted
from .equations import describe
from .errors import Unparsable
from .normalize import split_top
from .numerals import chinese_number, words_to_number
from .numeric import Number
from .quantity import Measure, measure, split_tail, without_asides
from .types import Answer, Clock, Equation, Items, Ratio, Value, Words
from .units import CURRENCIES, parse_unit
from .wording import MARKED, plain, sentence

Inner = Callable[[str, int], Answer]

_COMMA = re.compile(r"[,;]")
_EQUALS = re.compile(r"=")
_OPERATORS = (
    ("times", "\\cdot "),
    ("multiplied by", "\\cdot "),
    ("divided by", "/"),
    ("over", "/"),
    ("plus", "+"),
    ("minus", "-"),
)
_RATIO = re.compile(r"(?P<first>[^\\]+?)\s*\\text\{to\}\s*(?P<second>[^\\]+?)(?:\s*\\text\{to\}\s*(?P<third>[^\\]+))?")
_LABELLED = re.compile(r"(?:\\text\{[^{}]*\}\s*)+:\s*(?P<rest>[^:]+)")
_AMOUNT = re.compile(r"\\text\{(?P<currency>[^{}]*)\}\s*(?P<rest>[0-9.,]+)")
_PERMUTATIONS = re.compile(
    r"(?P<tuple>.*?)\s*,?\s*\\text\{and\}\s*(?:\\text\{(?:all|its|their|the|any|cyclic|of|other)\}\s*)*\\text\{permutations?\}"
    r"(?:\s*\\text\{[a-z]+\})*",
    re.DOTALL,
)
_PART = re.compile(
    r"\s*(?P<value>[^\\]*?[0-9])\s*(?P<words>\\text\{[^{}]*\}(?:\s*\\text\{(?!and\})[^{}]*\})*)\s*(?:,\s*|\\text\{and\})?"
)


def with_words(text: str, depth: int, inner: Inner, mathematics: Inner) -> Answer:
    """`text`, which has words, as a tree."""
    if (bare := without_asides(text)) != text:
        return inner(bare, depth)
    if (answer := _words_alone(text)) is not None:
        return answer
    if match := _PERMUTATIONS.fullmatch(text):
        return permuted(inner(match["tuple"], depth), "cyclic" in text)
    if (compound := _compound(text, depth, inner)) is not None:
        return compound
    parts, joint = wording.split_conjunction(text)
    if joint:
        return _joined(text, parts, joint, depth, inner)
    if (spelled := _with_operators(text)) != text:
        return inner(spelled, depth)
    if match := _RATIO.fullmatch(text):
        values = [inner(part, depth) for part in match.groups() if part]
        if all(isinstance(part, Value) for part in values):
            return Ratio(tuple(part for part in values if isinstance(part, Value)))
    if (quantity := _quantity(text, depth, inner)) is not None:
        return quantity
    if match := _LABELLED.fullmatch(text):
        return inner(match["rest"], depth)
    if (
        (match := _AMOUNT.fullmatch(text))
        and (unit := parse_unit(match["currency"]))
        and unit.dimension[0][0] in CURRENCIES
    ):
        answer = inner(match["rest"], depth)
        return dataclasses.replace(answer, unit=unit) if isinstance(answer, Value) else Words(sentence(text))
    sides = split_top(text, _EQUALS)
    if len(sides) > 1 and MARKED.search(sides[0]) and sides[-1]:
        kind, name, _ = describe(sides[0])
        if kind != "name":
            return Words(sentence(text))
        return Equation(text, "name", name, inner(sides[-1], depth), in_words=True)
    if len(split_top(text, _COMMA)) > 1 or len(sides) > 1 or text[:2] == "\\{" or text[0] in "([":
        try:
            return mathematics(text, depth)
        except Unparsable:
            pass
    return Words(sentence(text))


def _words_alone(text: str) -> Answer | None:
    """A number or a set in words, or "no solution"; None where there is more."""
    words = plain(text)
    if (stated := chinese_number(words)) is not None and len(words) > 0:
        number = Number(stated[0], percent=stated[1])
        return Value(text, number, ("num", stated[0]), percent=stated[1])
    if not words.startswith("-") and (count := words_to_number(words)) is not None:
        return Value(text, Number(count), ("num", count))
    if MARKED.sub("", text).strip(" ,.") in ("", "-") or re.fullmatch(r"\s*(?:\\text\{[^{}]*\}\s*)+[a-z]?\s*", text):
        if (named := named_sets.in_words(words)) is not None:
            return named
        if sentence(text) in (wording.NONE, wording.UNDEFINED, wording.DNE):
            return Words(sentence(text))
    return None


def _joined(text: str, parts: list[str], joint: str, depth: int, inner: Inner) -> Answer:
    try:
        pieces = [piece for part in parts for piece in split_top(part, _COMMA) if piece]
        return listed([inner(piece, depth) for piece in pieces], joint)
    except Unparsable:
        return Words(sentence(text))


def _with_operators(text: str) -> str:
    """ "2 times π" as a product, where a value stands on both sides."""
    for word, sign in _OPERATORS:
        marked = r"\s*".join(rf"\\text\{{{part}\}}" for part in word.split())
        text = re.sub(rf"(?<=[^\s{{])\s*{marked}\s*(?=\S)(?!\\text)", f" {sign} ".replace("\\", "\\\\"), text)
    return text


def _quantity(text: str, depth: int, inner: Inner) -> Answer | None:
    split = split_tail(text)
    if split is None:
        return None
    stated = measure(split[1])
    if stated is None:
        return None
    try:
        answer = inner(split[0], depth)
    except Unparsable:
        return None
    return _measured(answer, stated, text)


def _measured(answer: Answer, stated: Measure, text: str) -> Answer | None:
    """An answer with the words after it applied: to a value, the value of an equation, the last of a list."""
    if isinstance(answer, Equation):
        inside = _measured(answer.value, stated, text)
        return None if inside is None else dataclasses.replace(answer, value=inside, left=None, right=None)
    if isinstance(answer, Items):
        parts = [part for item in answer.items if (part := _measured(item, stated, text)) is not None]
        return dataclasses.replace(answer, items=tuple(parts)) if len(parts) == len(answer.items) else None
    if not isinstance(answer, Value):
        plain_noun = stated == Measure() or (stated.factor == 1 and stated.power == 1 and not stated.percent)
        return answer if plain_noun and not isinstance(answer, Words | Clock) else None
    node, number = answer.node, answer.number
    if stated.power != 1:
        node = ("pow", node, ("num", Fraction(stated.power)))
        number = None if number is None else Number(number.value**stated.power)
    if stated.factor != 1:
        node = ("mul", ("num", stated.factor), node)
        number = None if number is None else Number(number.value * stated.factor)
    if number is not None and stated.percent:
        number = dataclasses.replace(number, percent=True)
    label = tuple(sorted((*answer.label, *stated.label)))
    unit = stated.unit or answer.unit
    if answer.unit and stated.unit:  # $3 per pound
        per_unit = answer.unit.dimension[0][0] in CURRENCIES
        unit = answer.unit if per_unit else answer.unit.times(stated.unit)
        label = tuple(sorted((*label, stated.unit.name))) if per_unit else label
    return Value(text, number, node, unit, label, stated.percent or answer.percent)


def _compound(text: str, depth: int, inner: Inner) -> Answer | None:
    """ "2 hours 30 minutes" as hours; None for anything but two or more amounts of one dimension."""
    place, total, first = 0, Fraction(0), None
    parts = 0
    while place < len(text):
        match = _PART.match(text, place)
        stated = measure(plain(match["words"])) if match else None
        if (
            match is None
            or stated is None
            or stated.unit is None
            or (first and stated.unit.dimension != first.dimension)
        ):
            return None
        answer = inner(match["value"], depth)
        if not (isinstance(answer, Value) and answer.number):
            return None
        first = first or stated.unit
        total += answer.number.value * stated.unit.size / first.size
        place, parts = match.end(), parts + 1
    if parts < 2 or first is None:
        return None
    return Value(text, Number(total), ("num", total), dataclasses.replace(first, name=f"{first.name} and parts"))
