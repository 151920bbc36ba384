r"""LaTeX to sympy by math-verify's own parser, a grammar: no text is ever evaluated as Python.

The parser and the comparison are math-verify's. sympy is imported on the first call, in a worker process.
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from typing import Any

_MAX_CHARACTERS = 2000
_DIGITS = 60
_IMAGINARY = re.compile(r"(?<![A-Za-z\\_])(?<!_\{)i(?![A-Za-z])")
_INDEX = re.compile(r"\\(?:sum|prod)\s*_\s*\{?\s*i\s*=")
_TRIG_DEGREES = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*\^\s*\{?\s*\\circ\s*\}?")
_NAMED = re.compile(r"\\(?:text|mathrm)\s*\{\s*([A-Za-z]+)\s*\}")


class Unparsable(Exception):
    """The text is no mathematics that the parser knows."""


def has_imaginary(text: str) -> bool:
    """Whether the letter i stands for the imaginary unit in `text`."""
    return bool(_IMAGINARY.search(text)) and not _INDEX.search(text)


@lru_cache(maxsize=8192)
def expression(text: str, complex_numbers: bool) -> Any:
    """The sympy object of LaTeX. Raises Unparsable."""
    if len(text) > _MAX_CHARACTERS:
        raise Unparsable("too long")
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, NormalizationConfig, latex2sympy
    from sympy import Basic, MatrixBase, nan, zoo

    text = _TRIG_DEGREES.sub(r"\\frac{\1\\pi}{180}", text)
    text = _NAMED.sub(lambda match: f" {match[1]} " if len(match[1]) == 1 else match.group(), text)
    text = text.replace("%", "\\%")
    if complex_numbers:
        text = _IMAGINARY.sub("(I)", text)  # the grammar drops the power of a bare I
    try:
        parsed = latex2sympy(
            text,
            is_real=True,
            normalization_config=NormalizationConfig(basic_latex=True, malformed_operators=True, boxed="none"),
            conversion_config=ConversionConfig(lowercase_symbols=False),
        )
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise Unparsable(type(error).__name__) from None
    if not isinstance(parsed, Basic | MatrixBase) or parsed in (nan, zoo):
        raise Unparsable("no expression")
    return parsed


def as_set(parsed: Any) -> Any:
    """The set of real numbers, other than a list of them, that a sympy object is; None for any other object."""
    from sympy import FiniteSet, Set

    return parsed.doit() if isinstance(parsed, Set) and not isinstance(parsed, FiniteSet) else None


def equal_expression(gold: Any, answer: Any) -> bool:
    """Whether math-verify takes the two for equal. There is no time limit here: the grader pool has one."""
    if (quick := _equal_numbers(gold, answer)) is not None:
        return quick
    from math_verify.grader import verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that there is no time limit
    return bool(verify(gold, answer, timeout_seconds=None))


def _equal_numbers(gold: Any, answer: Any) -> bool | None:
    """Whether two exact numbers are equal, from 60 digits of each: 100 times as fast as simplifying the difference.

    None where digits do not decide: one of the two has a symbol or a decimal, both are nearly zero, as terms that
    cancel may be, or they differ in the last digits alone.
    """
    from sympy import Expr, Float

    if not all(isinstance(side, Expr) and side.is_number and not side.has(Float) for side in (gold, answer)):
        return None
    ours, theirs = gold.evalf(_DIGITS), answer.evalf(_DIGITS)
    larger, apart = max(abs(ours), abs(theirs)), abs(ours - theirs)
    if not (larger.is_Float and apart.is_number and larger > 10**-30):
        return None
    if apart > larger * 10**-12:
        return False
    # A number of more than 60 digits may differ in the others.
    return True if larger < 10**30 and apart < larger * Float(10) ** (5 - _DIGITS) else None


def interval(low: Any, high: Any, brackets: str) -> Any:
    """The sympy interval. Raises Unparsable where the ends are not real numbers in order."""
    from sympy import Interval, S

    try:
        parsed = Interval(low.doit(), high.doit(), left_open=brackets[0] == "(", right_open=brackets[1] == ")")
    except Exception as error:
        raise Unparsable(type(error).__name__) from None
    if not isinstance(parsed, Interval) or parsed is S.EmptySet:
        raise Unparsable("no interval")
    return parsed


def union(sets: list[Any], intersect: bool = False) -> Any:
    """The union of `sets`; with `intersect`, their intersection unless it is empty."""
    from sympy import Intersection, S, Union

    if intersect:
        intersection = Intersection(*sets)
        return intersection if intersection is not S.EmptySet else Union(*sets)
    return Union(*sets)


def region(text: str, complex_numbers: bool) -> tuple[Any, str, Any]:
    """The set that an inequality describes (None if it is not one of numbers), its variable, and its sympy object."""
    parsed = expression(text, complex_numbers)
    symbols = sorted(map(str, getattr(parsed, "free_symbols", ())))
    if len(symbols) == 1:
        try:
            return parsed.as_set(), symbols[0], parsed
        except Exception:  # sympy solves no such inequality
            pass
    return None, ",".join(symbols), parsed
