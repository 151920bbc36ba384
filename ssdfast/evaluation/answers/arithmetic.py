"""Arithmetic of exact fractions, mpmath's numbers and matrices (lists of rows), with bounds on the size of results."""

from __future__ import annotations

from fractions import Fraction
from math import isqrt
from typing import Any

from mpmath import mp

from .errors import Unparsable

_MAX_BITS = 4_000_000
"""An exact power of more bits is computed in floating point."""
_MAX_EXPONENT = 10**40


class TooLarge(ArithmeticError):
    """The value takes too much time or memory."""


class Uncovered(ArithmeticError):
    """No case of a function by cases holds here."""


class Undefined(ArithmeticError):
    """The expression has no value here: a division by zero, a condition that holds nowhere."""


def power(base: Any, exponent: Any) -> Any:
    """`base` to the power of `exponent`, exact where it is rational; an odd root of a negative number is real."""
    if isinstance(base, list) or isinstance(exponent, list):
        raise Unparsable("a power of a matrix")
    if isinstance(base, Fraction) and isinstance(exponent, Fraction):
        if base == 0 and exponent <= 0:
            raise Undefined
        if exponent.denominator == 1:
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if base in (0, 1, -1) or bits * abs(exponent) <= _MAX_BITS:
                return base ** int(exponent) if base not in (0, 1, -1) else base ** (int(exponent) % 2 or 2)
        elif (root := _exact_root(abs(base), exponent.denominator)) is not None and (
            base > 0 or exponent.denominator % 2
        ):
            return power(root if base > 0 else -root, Fraction(exponent.numerator))
    if isinstance(exponent, Fraction) and exponent.denominator % 2 and exponent.denominator > 1:
        value = as_float(base)
        if is_real(value) and mp.re(value) < 0:
            root = -((-mp.re(value)) ** (mp.mpf(1) / exponent.denominator))
            return power(root, Fraction(exponent.numerator))
    if abs(mp.re(as_float(exponent))) > _MAX_EXPONENT:
        raise TooLarge
    base, exponent = as_float(base), as_float(exponent)
    if base == 0 and mp.re(exponent) <= 0:
        raise Undefined
    if abs(mp.mag(base)) * abs(exponent) > _MAX_EXPONENT if base else False:
        raise TooLarge
    return chop(base**exponent)


def _exact_root(value: Fraction, degree: int) -> Fraction | None:
    if degree > 64 or max(value.numerator.bit_length(), value.denominator.bit_length()) > 2000:
        return None
    parts = []
    for whole in (value.numerator, value.denominator):
        root = isqrt(whole) if degree == 2 else round(whole ** (1 / degree)) if whole < 10**200 else 0
        if root**degree != whole:
            return None
        parts.append(root)
    return Fraction(*parts)


def plus(left: Any, right: Any) -> Any:
    if isinstance(left, list) or isinstance(right, list):
        if not (isinstance(left, list) and isinstance(right, list) and shape(left) == shape(right)):
            raise Unparsable("a sum of different shapes")
        return [[plus(a, b) for a, b in zip(*rows, strict=True)] for rows in zip(left, right, strict=True)]
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left + right
    return as_float(left) + as_float(right)


def times(left: Any, right: Any) -> Any:
    if isinstance(left, list) and isinstance(right, list):
        if len(left[0]) != len(right):
            raise Unparsable("a product of matrices that do not fit")
        columns = list(zip(*right, strict=True))
        return [[_dot(row, column) for column in columns] for row in left]
    if isinstance(left, list):
        return [[times(entry, right) for entry in row] for row in left]
    if isinstance(right, list):
        return [[times(left, entry) for entry in row] for row in right]
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left * right
    return as_float(left) * as_float(right)


def _dot(row: Any, column: Any) -> Any:
    total: Any = Fraction(0)
    for a, b in zip(row, column, strict=True):
        total = plus(total, times(a, b))
    return total


def shape(matrix: list[list[Any]]) -> tuple[int, int]:
    """Rows and columns."""
    return len(matrix), len(matrix[0])


def as_float(value: Any) -> Any:
    if isinstance(value, Fraction):
        return mp.mpf(value.numerator) / value.denominator
    if isinstance(value, list):
        raise Unparsable("a matrix where a number is expected")
    return value


def bounded(value: Any) -> Any:
    value = as_float(value)
    if abs(value) > 10**12:
        raise TooLarge
    return value


def is_real(value: Any) -> bool:
    return isinstance(value, Fraction) or mp.im(value) == 0


def real_part(value: Any) -> Any:
    value = as_float(value)
    if mp.im(value) != 0:
        raise Undefined
    return mp.re(value)


def chop(value: Any) -> Any:
    """Real where the imaginary part is no more than rounding."""
    if not isinstance(value, mp.mpc):
        return value
    noise = mp.mpf(10) ** (8 - mp.dps) * (1 + abs(value.real))
    return value.real if abs(value.imag) <= noise else value
