r"""Inequalities: in one variable the numbers that solve them, between several quantities the order of these."""

from __future__ import annotations

import re
from typing import Any

from .equations import describe, name_key
from .errors import Unparsable
from .expression import parse_expression
from .identity import kinds, names, number_value
from .latex import solve_inequality
from .normalize import split_top
from .regions import INFINITY, REALS, Pieces, complement, intersection, interval, single
from .types import Region, Relations, Symbols

RELATION = re.compile(r"\\(?:le|ge|ne)(?![A-Za-z])|[<>]")
_MIRRORED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le", "\\ne": "\\ne"}


def end(text: str) -> Any:
    """The number that an end of an interval is, or plus or minus infinity. Raises Unparsable."""
    bare = text.strip().lstrip("+")
    if bare in ("\\infty", "-\\infty"):
        return INFINITY if bare == "\\infty" else -INFINITY
    node = parse_expression(bare)
    if names(node) or {"call", "infty", "i"} & kinds(node):
        raise Unparsable("no number")
    return number_value(node)


def inequality(text: str) -> Region | Relations | Symbols:
    r"""``0 < x \le 1`` as a region, ``a < b < c`` as relations. Raises Unparsable."""
    signs = [match.group() for match in RELATION.finditer(text)]
    sides = split_top(text, RELATION)
    if len(signs) == 1 and len(sides) == 2 and not sides[0] and sides[1]:
        return Region(_half(signs[0], end(sides[1])))
    if len(sides) != len(signs) + 1 or not all(sides):
        raise Unparsable("an inequality without sides")
    ends = [_end_or_none(side) for side in sides]
    unknown = [place for place, value in enumerate(ends) if value is None]
    if len(unknown) == 1 and _is_variable(sides[unknown[0]]):
        place = unknown[0]
        regions = [_half(signs[place], ends[place + 1])] if place < len(signs) else []
        if place:
            regions.append(_half(_MIRRORED[signs[place - 1]], ends[place - 1]))
        return Region(intersection(regions), name_key(sides[place]))
    if not unknown:
        raise Unparsable("an inequality between numbers")
    if len(unknown) == 1:
        try:
            pieces, name = solve_inequality(text)
            return Region(pieces, name)
        except Unparsable:
            pass
    try:
        nodes = [parse_expression(side) for side in sides]
    except Unparsable:
        return Symbols("".join(text.split()))
    if "\\ne" in signs:
        return Symbols("".join(text.split()))
    relations = []
    for left, sign, right in zip(nodes, signs, nodes[1:], strict=False):
        smaller, larger = (left, right) if sign in ("<", "\\le") else (right, left)
        relations.append((sign in "<>", ("add", larger, ("neg", smaller))))
    return Relations(tuple(relations))


def _is_variable(text: str) -> bool:
    return describe(text)[0] == "name"


def _end_or_none(text: str) -> Any:
    try:
        return end(text)
    except Unparsable:
        return None


def _half(sign: str, value: Any) -> Pieces:
    """The numbers x with ``x sign value``."""
    if sign == "\\ne":
        return complement(single(value)) if not isinstance(value, float) else REALS
    if sign in ("<", "\\le"):
        return interval(-INFINITY, value, False, sign == "\\le")
    return interval(value, INFINITY, sign == "\\ge", False)
