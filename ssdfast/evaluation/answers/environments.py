r"""``cases``, ``aligned`` and ``array``: systems of equations, functions by cases, and matrices."""

from __future__ import annotations

import re

from .errors import Unparsable
from .expression import parse_expression
from .inequalities import RELATION
from .normalize import split_top
from .scanner import Node
from .wording import MARKED

_ENVIRONMENT = re.compile(
    r"(?:\\\{\s*)?\\begin\{(?P<name>[a-z]+\*?)\}(?:\s*\{[^{}]*\}|\[[a-z]\])?(?P<body>(?:(?!\\begin).)*)\\end\{(?P=name)\}\s*(?:\.|\\\})?",
    re.DOTALL,
)
_ROWS = re.compile(r"\\\\(?:\s*\[[^\]]*\])?")
_LISTS = ("cases", "aligned", "align", "gathered", "split", "array", "rcases", "gather", "dcases", "eqnarray")
_CONDITION = re.compile(r"^\s*\\text\{(?:if|for|when|where)\}\s*", re.IGNORECASE)
_OTHERWISE = re.compile(r"\s*\\text\{(?:otherwise|else)\}\s*", re.IGNORECASE)
_NAMES = {"\\le": "le", "\\ge": "ge", "\\ne": "ne", "<": "<", ">": ">", "=": "="}
_ANY_RELATION = re.compile(rf"{RELATION.pattern}|=")


def system(text: str) -> str | None:
    """The rows of an environment as a list with commas, None where the text is no system of equations."""
    match = _ENVIRONMENT.fullmatch(text)
    if not match or match["name"].rstrip("*") not in _LISTS:
        return None
    rows = [row.strip() for row in _ROWS.split(match["body"]) if row.strip()]
    if not rows or (len(rows) > 1 and not all("=" in row or RELATION.search(row) for row in rows)):
        return None
    if any("&" in row and not re.search(r"=|[<>]|\\[lgn]e(?![a-z])", row) for row in rows):
        return None
    return " , ".join(row.replace("&", " ").rstrip(" ,;.") for row in rows)


def piecewise(text: str) -> Node | None:
    """A function by cases: a row for each value, with its condition after an &. None where the text is no such."""
    match = _ENVIRONMENT.fullmatch(text)
    if not match or match["name"].rstrip("*") not in ("cases", "array", "dcases"):
        return None
    cases = []
    for row in filter(str.strip, _ROWS.split(match["body"])):
        value, mark, condition = row.partition("&")
        if not mark:
            return None
        condition = _CONDITION.sub("", condition.strip(" ,.&"))
        begins = _ANY_RELATION.match(condition)  # x &= 1 is an equation, set in columns
        if "=" in value or begins or not (_ANY_RELATION.search(condition) or _OTHERWISE.fullmatch(condition)):
            return None
        if MARKED.search(condition) and not _OTHERWISE.fullmatch(condition):
            return None
        cases.append(
            (parse_expression(value.strip(" ,")), () if _OTHERWISE.fullmatch(condition) else _conditions(condition))
        )
    return ("piecewise", *cases)


def _conditions(text: str) -> tuple[tuple[str, Node, Node], ...]:
    signs = [_NAMES[match.group()] for match in _ANY_RELATION.finditer(text)]
    sides = [parse_expression(side) for side in split_top(text, _ANY_RELATION)]
    if len(sides) != len(signs) + 1 or not signs:
        raise Unparsable("a case without a condition")
    return tuple(zip(signs, sides, sides[1:], strict=False))
