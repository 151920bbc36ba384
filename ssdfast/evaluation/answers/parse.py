r"""An answer as a tree: numbers, expressions, tuples, sets, lists, regions of the line, equations, words.

math-verify reads ``(2, 1)`` as an empty interval, ``10^{-8}`` as zero beside a decimal and "x=6, y=5" by position, so
containers are parsed here and only their elements go to it.
"""

from __future__ import annotations

import re
from typing import Any

from . import wording
from .latex import Unparsable, as_set, expression, interval, region, union
from .normalize import closing, normalize, split_top
from .numeric import number
from .types import Answer, Based, Equation, Items, Region, Residue, Value, Words, as_region, exact_sympy

_MAX_DEPTH = 20

_COMMA = re.compile(r"[,;]")
_PLUS_MINUS = re.compile(r"\\(pm|mp)(?![A-Za-z])")
_CUP = re.compile(r"\\cup(?![A-Za-z])")
_RELATION = re.compile(r"\\(?:le|ge|ne|in|subseteq)(?![A-Za-z])|[<>]")
_EQUALS = re.compile(r"=")
_APPROX = re.compile(r"\\approx(?![A-Za-z])")
_THOUSANDS = re.compile(r"([-+]?)([0-9]{1,3}(?:,[0-9]{3})+)(\.[0-9]+)?(%?)")
_SPACED = re.compile(r"(?<![0-9.])[0-9]{1,3}(?: [0-9]{3})+(?![0-9])")
_ENDPOINT = re.compile(r"\\infty")
_MOD = r"(?:\\pmod|\\bmod|\(\s*(?:\\bmod|\\(?:mathrm|text)\s*\{\s*mod\s*\}|mod))"
_RESIDUE = re.compile(rf"(?:([A-Za-z])\s*(?:\\equiv|=)\s*)?(-?[0-9]+)\s*{_MOD}\s*\{{?\s*([0-9]+)\s*\}}?\s*\)?")
_NAME = re.compile(
    r"[A-Za-z]'?(?:_\{?\w+\}?)?(?:\([^()]*\))?|\\[a-z]+(?:_\{?\w+\}?)?|[A-Z]{2,4}|\\angle ?[A-Z]+"
    r"|\(\s*[a-z](?:\s*,\s*[a-z])+\s*\)"
)
_SUCH_THAT = re.compile(r"\\\{\s*\w\s*(?:\\in\s*\\mathbb\{R\}\s*)?(?:\||:)\s*(.*)\\\}", re.DOTALL)
_IN_SET = re.compile(r"[A-Za-z]\s*\\in(?![A-Za-z])\s*(.*)", re.DOTALL)
_BASE = re.compile(r"([0-9A-Fa-f]+)_\s*(?:\{\s*([0-9]{1,2})\s*\}|([0-9])|\{?\s*\\text\s*\{\s*([a-z]+)\s*\}\s*\}?)")
_BASES = {
    "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
    "ten": "10", "eleven": "11", "twelve": "12", "sixteen": "16",
}  # fmt: skip
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_DEGREES = re.compile(r"\s*\^\s*\{?\s*\\circ\s*\}?\s*(?:[CF](?![A-Za-z]))?$")


def parse(text: str, complex_numbers: bool, depth: int = 0) -> Answer:
    """`text`, as `normalize` spells it, as a tree. Raises Unparsable where it is neither mathematics nor words."""
    if depth > _MAX_DEPTH:
        raise Unparsable("too deeply nested")
    if not text:
        raise Unparsable("empty")
    if (plain_number := number(text)) is not None:
        return Value(text, plain_number, None)
    if grouped := _THOUSANDS.fullmatch(text):
        return _value(f"{grouped[1]}{grouped[2].replace(',', '')}{grouped[3] or ''}{grouped[4]}", complex_numbers)
    if (based := _BASE.fullmatch(text)) and (base := based[2] or based[3] or _BASES.get(based[4])):
        return Based(based[1].lstrip("0").upper() or "0", base)
    if (residue := _RESIDUE.fullmatch(text)) and int(residue[3]):
        return Residue(int(residue[2]) % int(residue[3]), int(residue[3]), residue[1] or "")
    if wording.find_words(text):
        return _with_words(text, complex_numbers, depth)
    if "\\ldots" in text or "..." in text:
        return Words("".join(text.split()))
    return _mathematics(text, complex_numbers, depth)


def _with_words(text: str, complex_numbers: bool, depth: int) -> Answer:
    parts, joint = wording.split_conjunction(text)
    if joint:
        try:
            parts = [piece for part in parts for piece in split_top(normalize(part), _COMMA) if piece]
            return _listed([parse(normalize(part), complex_numbers, depth + 1) for part in parts], joint)
        except Unparsable:
            return Words(wording.sentence(text))
    value, unit = wording.split_unit(text)
    if value != text:
        try:
            inner = parse(normalize(value), complex_numbers, depth + 1)
        except Unparsable:
            return Words(wording.sentence(text))
        return Value(inner.text, inner.number, inner.sympy, unit) if isinstance(inner, Value) else inner
    sides = split_top(wording.plain(text), _EQUALS)
    if len(sides) > 1 and wording.find_words(sides[0]) and not wording.find_words(normalize(sides[-1])):
        return Equation(text, wording.sentence(sides[0]), parse(normalize(sides[-1]), complex_numbers, depth + 1))
    parts = split_top(text, _COMMA)
    if len(parts) > 1 or (text[0] == "\\" and text[1:2] == "{") or text[0] == "(":
        try:
            return _mathematics(text, complex_numbers, depth)
        except Unparsable:
            pass
    return Words(wording.sentence(text))


def _mathematics(text: str, complex_numbers: bool, depth: int) -> Answer:
    parts = [part for part in split_top(text, _COMMA) if part]
    if len(parts) > 1:
        return _listed([parse(normalize(part), complex_numbers, depth + 1) for part in parts], "comma")
    if match := _SUCH_THAT.fullmatch(text):
        return parse(normalize(match[1]), complex_numbers, depth + 1)
    if match := _IN_SET.fullmatch(text):
        return parse(normalize(match[1]), complex_numbers, depth + 1)
    pieces = split_top(text, _CUP)
    if len(pieces) > 1:
        return Region(union([_as_region(parse(normalize(piece), complex_numbers, depth + 1)) for piece in pieces]))
    if text in (wording.EMPTY, "\\{\\}", "\\{ \\}"):
        return Words(wording.EMPTY)
    if (container := _brackets(text)) is not None:
        return _container(text, *container, complex_numbers, depth)
    exact = split_top(text, _APPROX)
    if len(exact) > 1:
        named = _NAME.fullmatch(exact[0]) and not exact[0].startswith("\\pi")
        return parse(normalize(exact[-1 if named else 0]), complex_numbers, depth + 1)
    if len(split_top(text, _RELATION)) > 1:
        return Region(*region(text, complex_numbers))
    sides = split_top(text, _EQUALS)
    if len(sides) > 1:
        return _equation(text, [side for side in sides if side], complex_numbers, depth)
    if _PLUS_MINUS.search(text):
        signs = [_signed(text, plus) for plus in (True, False)]
        return Items("list", tuple(parse(normalize(variant), complex_numbers, depth + 1) for variant in signs))
    value = _value(text, complex_numbers)
    numbers = as_set(value.sympy)
    return value if numbers is None else Region(numbers)


def _brackets(text: str) -> tuple[str, str] | None:
    """The brackets around the whole of `text`, and their content."""
    for opening, end in (("\\{", "\\}"), ("\\langle", "\\rangle")):
        if text.startswith(opening) and text.endswith(end) and len(text) >= len(opening) + len(end):
            inside = text[len(opening) : -len(end)]
            if opening not in inside or (opening == "\\{" and closing(text, 1) == len(text) - 1):
                return ("{}" if end == "\\}" else "()"), inside.strip()
    if text[0] in "([" and closing(text, 0) == len(text) - 1:
        return text[0] + text[-1], text[1:-1].strip()
    return None


def _container(text: str, brackets: str, inside: str, complex_numbers: bool, depth: int) -> Answer:
    parts = [part for part in split_top(inside, _COMMA) if part]
    if not parts:
        raise Unparsable("empty brackets")
    items = tuple(parse(normalize(part), complex_numbers, depth + 1) for part in parts)
    if brackets == "{}":
        return Items("set", _flat(items))
    if len(items) == 1:
        return items[0]
    if all(isinstance(item, Equation) and item.name for item in items):
        return _listed(list(items), "comma")
    if len(items) == 2 and (brackets != "()" or _ENDPOINT.search(text)):
        ends = [item for item in items if isinstance(item, Value)]
        if len(ends) == 2 and brackets != "[]":
            return Region(interval(exact_sympy(ends[0]), exact_sympy(ends[1]), brackets))
    return Items("tuple", items, brackets)


def _equation(text: str, sides: list[str], complex_numbers: bool, depth: int) -> Answer:
    if not sides:
        raise Unparsable("an equation without sides")
    last = parse(normalize(sides[-1]), complex_numbers, depth + 1)
    if len(sides) == 1 or not re.search(r"(?<!\\)(?<![a-z])[A-Za-z]", re.sub(r"\\[a-z]+", "", sides[0])):
        return last if len(sides) == 1 or _is_number(last) else Equation(text, "", last)
    return Equation(text, "".join(sides[0].split()) if _NAME.fullmatch(sides[0]) else "", last)


def _is_number(answer: Answer) -> bool:
    return isinstance(answer, Value) and answer.number is not None


def _listed(items: list[Answer], joint: str) -> Answer:
    """Several answers side by side without brackets."""
    if items and all(isinstance(item, Region) for item in items):
        regions = [item.sympy for item in items if isinstance(item, Region)]
        if all(numbers is not None for numbers in regions):
            return Region(union(regions, intersect=joint == "and"))
    named = [item.name for item in items if isinstance(item, Equation) and item.name]
    if isinstance(items[0], Equation) and len(set(named)) == 1 < len(items):  # x = 1 or x = 2; x = ±1, ±2
        return Items("list", _flat(tuple(item.value if isinstance(item, Equation) else item for item in items)))
    if len(named) == len(items) and len(set(named)) == len(named) > 1:  # x = 6, y = 5 is a point
        ordered = sorted((item for item in items if isinstance(item, Equation)), key=lambda item: item.name)
        return Items("tuple", tuple(item.value for item in ordered), "=" + ",".join(item.name for item in ordered))
    if len(named) == len(items) and len(set(named)) < len(named):  # x = 0, y = 2 and x = 9, y = 11
        points: list[list[Answer]] = [[]]
        for item in items:
            if any(
                isinstance(other, Equation) and isinstance(item, Equation) and other.name == item.name
                for other in points[-1]
            ):
                points.append([])
            points[-1].append(item)
        return Items("list", tuple(_listed(point, "comma") for point in points))
    return items[0] if len(items) == 1 else Items("list", _flat(tuple(items)))


def _flat(items: tuple[Answer, ...]) -> tuple[Answer, ...]:
    """±1 among others is two values."""
    return tuple(
        inner
        for item in items
        for inner in (item.items if isinstance(item, Items) and item.kind == "list" else (item,))
    )


def _signed(text: str, plus: bool) -> str:
    return _PLUS_MINUS.sub(lambda match: "+" if (match[1] == "pm") == plus else "-", text)


def _as_region(answer: Answer) -> Any:
    numbers = as_region(answer)
    if numbers is None:
        raise Unparsable("a union of what are no sets")
    return numbers


def _value(text: str, complex_numbers: bool) -> Value:
    if (match := _DEGREES.search(text)) and not _TRIGONOMETRY.search(text):
        inner = text[: match.start()].strip()
        return Value(inner, number(inner), None if number(inner) else expression(inner, complex_numbers), "degree")
    text = _SPACED.sub(lambda match: match.group().replace(" ", ""), text)
    if (plain_number := number(text)) is not None:
        return Value(text, plain_number, None)
    return Value(text, None, expression(text, complex_numbers))
