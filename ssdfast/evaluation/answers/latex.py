r"""LaTeX to sympy by math-verify's own parser, a grammar: no text is ever evaluated as Python.

The parse is math-verify's, the comparison too; sympy is imported on the first call, in a worker process.
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from typing import Any

_LONGEST = 2000
_DIGITS = 60
_IMAGINARY = re.compile(r"(?<![A-Za-z\\_])(?<!_\{)i(?![A-Za-z])")
_INDEX = re.compile(r"\\(?:sum|prod)\s*_\s*\{?\s*i\s*=")
_TRIG_DEGREES = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*\^\s*\{?\s*\\circ\s*\}?")
_NAMED = re.compile(r"\\(?:text|mathrm)\s*\{\s*([A-Za-z]+)\s*\}")


class Unreadable(Exception):
    """No mathematics that the parser knows."""


def has_imaginary(text: str) -> bool:
    """Whether the letter i stands for the imaginary unit in `text`."""
    return bool(_IMAGINARY.search(text)) and not _INDEX.search(text)


@lru_cache(maxsize=8192)
def expression(text: str, complex_numbers: bool) -> Any:
    """The sympy object of LaTeX. Raises Unreadable."""
    if len(text) > _LONGEST:
        raise Unreadable("too long")
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, NormalizationConfig, latex2sympy
    from sympy import Basic, MatrixBase, nan, zoo

    text = _TRIG_DEGREES.sub(r"\\frac{\1\\pi}{180}", text)
    text = _NAMED.sub(lambda found: f" {found[1]} " if len(found[1]) == 1 else found.group(), text)
    text = text.replace("%", "\\%")
    if complex_numbers:
        text = _IMAGINARY.sub("(I)", text)  # the grammar drops the power of a bare I
    try:
        found = latex2sympy(
            text,
            is_real=True,
            normalization_config=NormalizationConfig(basic_latex=True, malformed_operators=True, boxed="none"),
            conversion_config=ConversionConfig(lowercase_symbols=False),
        )
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise Unreadable(type(error).__name__) from None
    if not isinstance(found, Basic | MatrixBase) or found in (nan, zoo):
        raise Unreadable("no expression")
    return found


def as_set(found: Any) -> Any:
    """The set of real numbers, other than a list of them, that a sympy object is; None for any other."""
    from sympy import FiniteSet, Set

    return found.doit() if isinstance(found, Set) and not isinstance(found, FiniteSet) else None


def same_expression(gold: Any, answer: Any) -> bool:
    """Whether math-verify takes the two for equal. It has no time limit of its own here: the pool has one."""
    if (quick := _same_numbers(gold, answer)) is not None:
        return quick
    from math_verify.grader import verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that there is no limit
    return bool(verify(gold, answer, timeout_seconds=None))


def _same_numbers(gold: Any, answer: Any) -> bool | None:
    """Of exact numbers, by 60 digits of each: a hundred times as fast as simplifying their difference.

    None where digits do not settle it: a symbol or a decimal is in one of them, both are next to nothing, as what
    cancels out may be, or they differ in the last digits alone.
    """
    from sympy import Expr, Float

    if not all(isinstance(one, Expr) and one.is_number and not one.has(Float) for one in (gold, answer)):
        return None
    ours, theirs = gold.evalf(_DIGITS), answer.evalf(_DIGITS)
    larger, apart = max(abs(ours), abs(theirs)), abs(ours - theirs)
    if not (larger.is_Float and apart.is_number and larger > 10**-30):
        return None
    if apart > larger * 10**-12:
        return False
    # A number of more digits than are looked at may differ in the others.
    return True if larger < 10**30 and apart < larger * Float(10) ** (5 - _DIGITS) else None


def interval(low: Any, high: Any, brackets: str) -> Any:
    """The sympy interval. Raises Unreadable where the ends are not real numbers in order."""
    from sympy import Interval, S

    try:
        found = Interval(low.doit(), high.doit(), left_open=brackets[0] == "(", right_open=brackets[1] == ")")
    except Exception as error:
        raise Unreadable(type(error).__name__) from None
    if not isinstance(found, Interval) or found is S.EmptySet:
        raise Unreadable("no interval")
    return found


def union(parts: list[Any], all_of: bool = False) -> Any:
    """All of the numbers in `parts`; with `all_of`, those in every one, if there are any."""
    from sympy import Intersection, S, Union

    if all_of:
        both = Intersection(*parts)
        return both if both is not S.EmptySet else Union(*parts)
    return Union(*parts)


def region(text: str, complex_numbers: bool) -> tuple[Any, str, Any]:
    """The set that an inequality describes (None if it is not one of numbers), its variable, and its sympy object."""
    found = expression(text, complex_numbers)
    symbols = sorted(map(str, getattr(found, "free_symbols", ())))
    if len(symbols) == 1:
        try:
            return found.as_set(), symbols[0], found
        except Exception:  # sympy solves no such inequality
            pass
    return None, ",".join(symbols), found
