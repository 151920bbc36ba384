r"""An answer as a tree: numbers, expressions, tuples, sets, lists, regions of the line, equations, words."""

from __future__ import annotations

import re
from fractions import Fraction

from . import named_sets, wording
from .clock import parse_clock
from .containers import bracketed, listed, union_or_difference
from .environments import piecewise, system
from .equations import equation
from .errors import Unparsable
from .inequalities import RELATION, inequality
from .normalize import normalize, split_top
from .numeric import Number, number
from .phrases import with_words
from .quantity import split_money
from .types import Answer, Based, Choices, Equation, Items, Progression, Ratio, Residue, Symbols, Value, Words
from .values import value

_MAX_DEPTH = 100

_COMMA = re.compile(r"[,;]")
_PLUS_MINUS = re.compile(r"\\(pm|mp)(?![A-Za-z])")
_EQUALS = re.compile(r"=")
_COLON = re.compile(r":")
_APPROX = re.compile(r"\\approx(?![A-Za-z])|(?:,\s*)?\\text\{i\.e\}")
_GROUPED = re.compile(r"([-+]?)([0-9]{1,3}(?:,[0-9]{3})+)(\.[0-9]+)?(%?)")
_SPACED = re.compile(r"(?<![0-9.])[0-9]{1,3}(?: [0-9]{3})+(?![0-9])")
_MOD = r"(?:\\pmod|\\bmod|\(\s*(?:\\bmod|\\mathrm\s*\{\s*mod\s*\}|mod)|\\mathrm\s*\{\s*mod\s*\}|mod)"
_RESIDUE = re.compile(rf"(?:([A-Za-z])\s*(?:\\equiv|=)\s*)?(-?[0-9]+)\s*,?\s*{_MOD}\s*\{{?\s*([0-9]+)\s*\}}?\s*\)?")
_SUCH_THAT = re.compile(
    r"\\\{\s*(?P<name>\w)\s*(?:\\in\s*\\mathbb\s*\{?(?P<domain>[RZN])\}?\s*)?(?:\||:)\s*(?P<condition>.*)\\\}",
    re.DOTALL,
)
_IN_SET = re.compile(r"(?P<name>[A-Za-z]|\\[a-z]+)\s*\\in(?![A-Za-z])\s*(?P<set>.*)", re.DOTALL)
_WHOLE = re.compile(
    r"(?P<body>.+?)\s*[,;(:]?\s*(?:\(|\\text\{(?:where|for|with)\}\s*)?\s*(?:\\text\{(?:any|all|integer|integers)\}\s*)*"
    r"(?P<index>[a-zA-Z])\s*(?:\\in\s*\\mathbb\s*\{?\s*[ZN]\s*\}?|\\text\{(?:is)\}\s*\\text\{(?:an|any)\}\s*\\text\{integer\}|\\text\{integer\})\s*\)?",
    re.DOTALL,
)
_BASE = re.compile(
    r"0b(?P<binary>[01]+)|0x(?P<hex>[0-9A-Fa-f]+)"
    r"|(?P<digits>[0-9A-Fa-f]+)_\s*(?:\{\s*(?P<braced>[0-9]{1,2}|[a-z]+)\s*\}|(?P<bare>[0-9]))"
)
_BASES = {
    "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
    "ten": "10", "eleven": "11", "twelve": "12", "sixteen": "16",
}  # fmt: skip
_REVERSED = re.compile(r"(?P<low>[\[\]])(?P<inside>[^\[\]]*[,;][^\[\]]*)(?P<high>[\[\]])")


def parse(text: str, depth: int = 0) -> Answer:
    """`text`, as `normalize` spells it, as a tree. Raises Unparsable where it is neither mathematics nor words."""
    if depth > _MAX_DEPTH:
        raise Unparsable("too deeply nested")
    if not text:
        raise Unparsable("empty")
    if (plain_number := number(text)) is not None:
        return Value(text, plain_number, ("num", plain_number.value), percent=plain_number.percent)
    if grouped := _GROUPED.fullmatch(text):
        return value(f"{grouped[1]}{grouped[2].replace(',', '')}{grouped[3] or ''}{grouped[4]}")
    amount, currency = split_money(text) if "\\" in text else (text, None)
    if currency is not None and (number(amount) or _GROUPED.fullmatch(amount)):
        return value(text)
    if (special := _special(text)) is not None:
        return special
    if text.startswith("\\begin") or text.startswith("\\{ \\begin"):
        if (node := piecewise(text)) is not None:
            return Value(text, None, node)
        if (rows := system(text)) is not None:
            return inner(rows, depth)
    if (whole := _WHOLE.fullmatch(text)) and (progression := _progression(whole, depth)) is not None:
        return progression
    if wording.MARKED.search(text):
        return with_words(text, depth, inner, mathematics)
    if "\\ldots" in text or "..." in text:
        return Symbols("".join(text.split()))
    return mathematics(text, depth)


def inner(text: str, depth: int) -> Answer:
    """A part of an answer, which begins and ends otherwise than the whole."""
    return parse(normalize(text), depth + 1)


def _special(text: str) -> Answer | None:
    """A numeral in a base, a residue, a time, circled numbers, a set with a name."""
    if based := _BASE.fullmatch(text):
        if based["binary"] or based["hex"]:
            return Based((based["binary"] or based["hex"]).lstrip("0").upper() or "0", "2" if based["binary"] else "16")
        base = based["bare"] or based["braced"]
        if base == "10" and based["digits"].isdigit():
            count = Fraction(based["digits"])
            return Value(text, Number(count), ("num", count))
        if base := base if base.isdigit() else _BASES.get(base, ""):
            return Based(based["digits"].lstrip("0").upper() or "0", base)
    if (residue := _RESIDUE.fullmatch(text)) and int(residue[3]):
        return Residue(int(residue[2]), int(residue[3]), residue[1] or "")
    if (clock := parse_clock(text)) is not None:
        return clock
    if "\\mathbb" in text and (named := named_sets.in_symbols(text)) is not None:
        return named
    if not text.isascii() and (circled := wording.choices(text)) is not None:
        return Choices(circled)
    return None


def _progression(match: re.Match[str], depth: int) -> Answer | None:
    r"""``2k\pi, k \in \mathbb{Z}``."""
    body = inner(match["body"].rstrip(" ,;(:"), depth)
    while isinstance(body, Items) and len(body.items) == 1:
        body = body.items[0]
    natural = re.search(r"\\mathbb\s*\{?\s*N", match.group()) is not None
    if isinstance(body, Items):  # the ends of an interval move together, so that neither is shifted alone
        together = natural or body.kind == "tuple"
        parts = [_all_values(item, match["index"], together) for item in body.items]
        items = tuple(part for part in parts if part is not None)
        return Items(body.kind, items, body.brackets) if len(items) == len(parts) else None
    return _all_values(body, match["index"], natural)


def _all_values(answer: Answer, index: str, natural: bool) -> Answer | None:
    if isinstance(answer, Equation) and answer.kind == "name":
        answer = answer.value
    return Progression(answer.node, index, natural) if isinstance(answer, Value) else None


def mathematics(text: str, depth: int) -> Answer:
    """`text` without words as a tree. Raises Unparsable."""
    if text in (wording.EMPTY, "\\{\\}", "\\{ \\}"):
        return Words(wording.NONE)
    if match := _REVERSED.fullmatch(text):
        low, high = "(" if match["low"] == "]" else "[", ")" if match["high"] == "[" else "]"
        interval = bracketed(text, low + high, match["inside"], depth, inner) if low + high != "[]" else None
        if interval is not None:
            return interval
    parts = [part for part in split_top(text, _COMMA) if part]
    if len(parts) > 1:
        name, unequal, _ = parts[0].partition("\\ne")
        if unequal and not any(RELATION.search(part) or "=" in part for part in parts[1:]):  # x is neither 1 nor 2
            parts[1:] = [f"{name}\\ne {part}" for part in parts[1:]]
        return listed([inner(part, depth) for part in parts], "comma")
    if match := _SUCH_THAT.fullmatch(text):
        return _such_that(match, depth)
    if match := _IN_SET.fullmatch(text):
        return inner(match["set"], depth)
    if (combined := union_or_difference(text, depth, inner)) is not None:
        return combined
    if (container := bracketed(text, "", "", depth, inner)) is not None:
        return container
    exact = split_top(text, _APPROX)
    if len(exact) > 1:
        stated = [part for part in exact if part]
        bare_name = re.fullmatch(r"[A-Za-z](?:_\w)?", stated[0])
        return inner(f"{stated[0]} = {stated[1]}" if bare_name and len(stated) > 1 else stated[0], depth)
    if RELATION.search(text) and len(split_top(text, RELATION)) > 1:
        if _PLUS_MINUS.search(text):
            return listed([inner(_signed(text, plus), depth) for plus in (True, False)], "and")
        return inequality(text)
    sides = [side for side in split_top(text, _EQUALS) if side]
    if len(sides) > 1:
        return _equation(text, sides, depth)
    parts = split_top(text, _COLON)
    if len(parts) > 1 and all(parts):
        return _ratio(parts, depth)
    if _PLUS_MINUS.search(text):
        return Items("list", _flat_signs(text, depth))
    return value(_SPACED.sub(lambda match: match.group().replace(" ", ""), text))


def _equation(text: str, sides: list[str], depth: int) -> Answer:
    if len(sides) > 2 and all(re.fullmatch(r"[A-Za-z](?:_\w)?", side) for side in sides[:-1]):
        return listed([inner(f"{side} = {sides[-1]}", depth) for side in sides[:-1]], "comma")  # x = y = 0
    parsed: list[Answer | None] = []
    for place, side in enumerate(sides):
        try:
            parsed.append(inner(side, depth) if place in (0, len(sides) - 1) else None)
        except Unparsable:
            parsed.append(None)
    return equation(text, sides, parsed)


def _ratio(parts: list[str], depth: int) -> Answer:
    values = [inner(part, depth) for part in parts]
    if not all(isinstance(part, Value) for part in values):
        raise Unparsable("a ratio of what are no values")
    return Ratio(tuple(part for part in values if isinstance(part, Value)))


def _such_that(match: re.Match[str], depth: int) -> Answer:
    condition = inner(match["condition"], depth)
    return named_sets.within(condition, match["domain"] or "")


def _flat_signs(text: str, depth: int) -> tuple[Answer, ...]:
    both = [inner(_signed(text, plus), depth) for plus in (True, False)]
    return tuple(item for answer in both for item in (answer.items if isinstance(answer, Items) else (answer,)))


def _signed(text: str, plus: bool) -> str:
    return _PLUS_MINUS.sub(lambda match: "+" if (match[1] == "pm") == plus else "-", text)
