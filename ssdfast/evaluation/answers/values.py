"""A number or an expression, read by the grammar or, where it does not know the notation, by math-verify's parser."""

from __future__ import annotations

import re

from .errors import Unparsable
from .expression import parse_expression
from .identity import exact_value
from .latex import sympy_node
from .numeric import Number, number
from .quantity import split_money
from .scanner import Node
from .types import Value

_GROUPED = re.compile(r"-?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_CALCULUS = re.compile(r"\\(?:lim|i{1,3}nt|oint|sum|prod|partial|sup|inf|det)(?![a-z])|\\frac\s*\{\s*d")


def value(text: str) -> Value:
    """The value that `text` is, with its currency or percent sign. Raises Unparsable."""
    amount, currency = split_money(text)
    if currency is not None:
        inside = value(amount.replace(",", "") if _GROUPED.fullmatch(amount) else amount)
        return Value(text, inside.number, inside.node, currency)
    if (plain_number := number(text)) is not None:
        return Value(text, plain_number, ("num", plain_number.value), percent=plain_number.percent)
    percent = text.endswith("%")
    node = expression_node(text.rstrip("% ") if percent else text)
    exact = exact_value(node)
    return Value(text, None if exact is None else Number(exact, percent=percent), node, percent=percent)


def expression_node(text: str) -> Node:
    """The tree of an expression. Raises Unparsable."""
    try:
        return parse_expression(text)
    except Unparsable:
        if not _CALCULUS.search(text) or "'" in text:
            raise
    return sympy_node(text)
