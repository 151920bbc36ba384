"""What the grammar does not read, read by math-verify's parser into sympy: integrals, limits, inequalities to solve.

No text is ever evaluated as Python. sympy is imported on the first call, in a worker process.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any

from mpmath import mp

from .errors import Unparsable
from .expression import MAX_CHARACTERS
from .regions import INFINITY, REALS, Pieces, complement, interval, single, union
from .scanner import Node


@lru_cache(maxsize=1024)
def sympy_node(text: str) -> Node:
    """The tree whose only node is the sympy expression of `text`. Raises Unparsable."""
    from sympy import Expr, nan, zoo

    parsed = _parse(text)
    if not isinstance(parsed, Expr) or parsed in (nan, zoo):
        raise Unparsable("no expression")
    return ("sympy", parsed)


@lru_cache(maxsize=1024)
def solve_inequality(text: str) -> tuple[Pieces, str]:
    """The solutions of an inequality in one variable, and its name. Raises Unparsable where sympy finds none."""
    parsed = _parse(text)
    symbols = sorted(map(str, getattr(parsed, "free_symbols", ())))
    if len(symbols) != 1:
        raise Unparsable("no inequality in one variable")
    try:
        solved = parsed.as_set()
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # sympy raises all sorts of things on what it cannot solve
        raise Unparsable(type(error).__name__) from None
    return _pieces(solved), symbols[0]


def _parse(text: str) -> Any:
    if len(text) > MAX_CHARACTERS:
        raise Unparsable("too long")
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, NormalizationConfig, latex2sympy

    try:
        return latex2sympy(
            text.replace("%", "\\%"),
            is_real=True,
            normalization_config=NormalizationConfig(basic_latex=True, malformed_operators=True, boxed="none"),
            conversion_config=ConversionConfig(lowercase_symbols=False),
        )
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # the parser raises all sorts of things on nonsense
        raise Unparsable(type(error).__name__) from None


def _pieces(solved: Any) -> Pieces:
    """The region that a set of sympy's is. Raises Unparsable for one that is not made of intervals."""
    from sympy import Complement, EmptySet, FiniteSet, Interval, Reals, Union

    if solved is EmptySet or solved == EmptySet:
        return ()
    if solved == Reals:
        return REALS
    if isinstance(solved, Interval):
        return interval(_end(solved.start), _end(solved.end), not solved.left_open, not solved.right_open)
    if isinstance(solved, FiniteSet):
        return union(single(_end(value)) for value in solved)
    if isinstance(solved, Union):
        return union(_pieces(part) for part in solved.args)
    if isinstance(solved, Complement) and solved.args[0] == Reals:
        return complement(_pieces(solved.args[1]))
    raise Unparsable("no union of intervals")


def _end(value: Any) -> Any:
    if value.is_infinite:
        return INFINITY if value.is_extended_positive else -INFINITY
    if value.is_Rational:
        return Fraction(int(value.p), int(value.q))
    with mp.workdps(60):
        return mp.mpf(str(value.evalf(55)))
