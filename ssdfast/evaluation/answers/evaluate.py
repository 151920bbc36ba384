"""The value of an expression's tree: an exact fraction where it is one, else a number of mpmath's working precision.

Sizes are bounded before anything is computed: a tower of powers raises TooLarge in microseconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from fractions import Fraction
from math import comb, factorial, gcd, isqrt, lcm
from typing import Any

from mpmath import mp

from .errors import Unparsable
from .expression import Node

_MAX_BITS = 4_000_000
"""An exact power of more bits is computed in floating point."""
_MAX_EXPONENT = 10**40
_MAX_TERMS = 3000
_MAX_FACTORIAL = 20_000


class TooLarge(ArithmeticError):
    """The value takes too much time or memory."""


class Undefined(ArithmeticError):
    """The expression has no value here: a division by zero, a condition that holds nowhere."""


class Evaluator:
    """Values of trees for values of their names.

    A name without a value raises Unparsable. `degree` is what one degree counts as outside trigonometric functions;
    `natural_log` is the base of a log without one.
    """

    def __init__(self, names: Mapping[str, Any], degree: Any = Fraction(1), natural_log: bool = False) -> None:
        self.names, self.degree, self.natural_log = dict(names), degree, natural_log

    def __call__(self, node: Node) -> Any:
        return getattr(self, f"_{node[0]}")(*node[1:])

    def _num(self, value: Fraction) -> Any:
        return value

    def _name(self, name: str) -> Any:
        if name not in self.names:
            raise Unparsable(f"{name} has no value")
        return self.names[name]

    def _const(self, name: str) -> Any:
        if name in self.names:
            return self.names[name]
        return {"pi": +mp.pi, "e": +mp.e, "i": mp.mpc(0, 1), "infty": mp.inf}[name]

    def _add(self, *terms: Node) -> Any:
        total = self(terms[0])
        for term in terms[1:]:
            total = _plus(total, self(term))
        return total

    def _neg(self, node: Node) -> Any:
        return _times(Fraction(-1), self(node))

    def _mul(self, left: Node, right: Node) -> Any:
        return _times(self(left), self(right))

    def _div(self, over: Node, under: Node) -> Any:
        divisor = self(under)
        if isinstance(divisor, list):
            raise Unparsable("a division by a matrix")
        if divisor == 0:
            raise Undefined
        value = self(over)
        if isinstance(divisor, Fraction):
            return _times(value, 1 / divisor)
        return _times(value, 1 / divisor)

    def _pow(self, base: Node, exponent: Node) -> Any:
        return power(self(base), self(exponent))

    def _root(self, degree: Node, node: Node) -> Any:
        n, value = self(degree), self(node)
        if not isinstance(n, Fraction) or n == 0:
            return power(value, 1 / n)
        return power(value, 1 / n)

    def _fact(self, node: Node) -> Any:
        value = self(node)
        if isinstance(value, Fraction) and value.denominator == 1 and 0 <= value <= _MAX_FACTORIAL:
            return Fraction(factorial(int(value)))
        return mp.factorial(_bounded(value))

    def _binom(self, upper: Node, lower: Node) -> Any:
        n, k = self(upper), self(lower)
        if all(isinstance(x, Fraction) and x.denominator == 1 and 0 <= x <= _MAX_FACTORIAL for x in (n, k)):
            return Fraction(comb(int(n), int(k)))
        return mp.binomial(_bounded(n), _bounded(k))

    def _deg(self, node: Node) -> Any:
        return _times(self.degree, self(node))

    def _log(self, base: Node, node: Node) -> Any:
        divisor = mp.log(_float(self(base)))
        if divisor == 0:
            raise Undefined
        return self._fn("ln", node) / divisor

    def _fn(self, name: str, *operands: Node) -> Any:
        if name in ("gcd", "lcm", "max", "min"):
            return self._operator(name, [self(operand) for operand in operands])
        if name in ("log", "plain log"):
            return self._fn("ln", *operands) / (1 if self.natural_log else mp.log(10))
        (operand,) = operands
        degree = self.degree
        if name in _ANGLES:
            self.degree = mp.pi / 180
        try:
            value = self(operand)
        finally:
            self.degree = degree
        if isinstance(value, Fraction) and (exact := _EXACT.get(name)):
            return exact(value)
        value = _float(value)
        if value == 0 and name in ("ln", "cot", "csc"):
            raise Undefined
        return _chop(_FLOATS[name](value))

    def _operator(self, name: str, values: list[Any]) -> Any:
        if not all(isinstance(value, Fraction) for value in values):
            if name in ("max", "min"):
                return (max if name == "max" else min)(map(_real, values))
            raise Undefined
        if name in ("max", "min"):
            return (max if name == "max" else min)(values)
        if any(value.denominator != 1 for value in values):
            raise Undefined
        return Fraction((gcd if name == "gcd" else lcm)(*map(int, values)))

    def _call(self, name: str, *operands: Node) -> Any:
        """An unknown function: a value that depends on nothing but the function and its arguments."""
        key = ",".join(mp.nstr(_float(self(operand)), 20) for operand in operands)
        return _times(Fraction(random.Random(f"{name}({key})").randint(10**6, 10**7), 10**6), self.names.get("()", Fraction(1)))

    def _series(self, variable: str, low: Node, high: Node, body: Node, combine: Callable[[Any, Any], Any], start: int) -> Any:
        first, last = self(low), self(high)
        if not all(isinstance(end, Fraction) and end.denominator == 1 for end in (first, last)):
            raise Undefined
        if last - first > _MAX_TERMS:
            raise TooLarge
        before, total = self.names.get(variable), Fraction(start)
        for index in range(int(first), int(last) + 1):
            self.names[variable] = Fraction(index)
            total = combine(total, self(body))
        if before is None:
            self.names.pop(variable, None)
        else:
            self.names[variable] = before
        return total

    def _sum(self, variable: str, low: Node, high: Node, body: Node) -> Any:
        return self._series(variable, low, high, body, _plus, 0)

    def _prod(self, variable: str, low: Node, high: Node, body: Node) -> Any:
        return self._series(variable, low, high, body, _times, 1)

    def _matrix(self, rows: tuple[tuple[Node, ...], ...]) -> Any:
        return [[self(entry) for entry in row] for row in rows]

    def _det(self, rows: tuple[tuple[Node, ...], ...]) -> Any:
        return mp.det(mp.matrix([[_float(self(entry)) for entry in row] for row in rows]))

    def _transpose(self, node: Node) -> Any:
        value = self(node)
        if not isinstance(value, list):
            raise Unparsable("a transposed number")
        return [list(row) for row in zip(*value, strict=True)]

    def _piecewise(self, *cases: tuple[Node, tuple[tuple[str, Node, Node], ...]]) -> Any:
        for value, conditions in cases:
            if all(holds(relation, self(left), self(right)) for relation, left, right in conditions):
                return self(value)
        raise Undefined

    def _sympy(self, parsed: Any) -> Any:
        """What math-verify's parser has read, for notation that the grammar does not know: integrals, limits."""
        values = {symbol: _sympify(self._name(str(symbol))) for symbol in parsed.free_symbols}
        value = parsed.doit().subs(values).evalf(mp.dps)
        if not value.is_number:
            raise Undefined
        real, imaginary = value.as_real_imag()
        return _chop(mp.mpc(mp.mpf(str(real)), mp.mpf(str(imaginary))))


def holds(relation: str, left: Any, right: Any) -> bool:
    """Whether ``left relation right`` is true of two real numbers."""
    if relation in ("=", "ne"):
        return bool(left == right) == (relation == "=")
    left, right = _real(left), _real(right)
    return bool({"<": left < right, ">": left > right, "le": left <= right, "ge": left >= right}[relation])


def power(base: Any, exponent: Any) -> Any:
    """`base` to the power of `exponent`, exact where it is rational; a root of odd degree of a negative number is real."""
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
        value = _float(base)
        if _is_real(value) and mp.re(value) < 0:
            root = -((-mp.re(value)) ** (mp.mpf(1) / exponent.denominator))
            return power(root, Fraction(exponent.numerator))
    if abs(mp.re(_float(exponent))) > _MAX_EXPONENT:
        raise TooLarge
    base, exponent = _float(base), _float(exponent)
    if base == 0 and mp.re(exponent) <= 0:
        raise Undefined
    if abs(mp.mag(base)) * abs(exponent) > _MAX_EXPONENT if base else False:
        raise TooLarge
    return _chop(base**exponent)


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


def _plus(left: Any, right: Any) -> Any:
    if isinstance(left, list) or isinstance(right, list):
        if not (isinstance(left, list) and isinstance(right, list) and shape(left) == shape(right)):
            raise Unparsable("a sum of different shapes")
        return [[_plus(a, b) for a, b in zip(*rows, strict=True)] for rows in zip(left, right, strict=True)]
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left + right
    return _float(left) + _float(right)


def _times(left: Any, right: Any) -> Any:
    if isinstance(left, list) and isinstance(right, list):
        if len(left[0]) != len(right):
            raise Unparsable("a product of matrices that do not fit")
        columns = list(zip(*right, strict=True))
        return [[_dot(row, column) for column in columns] for row in left]
    if isinstance(left, list):
        return [[_times(entry, right) for entry in row] for row in left]
    if isinstance(right, list):
        return [[_times(left, entry) for entry in row] for row in right]
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left * right
    return _float(left) * _float(right)


def _dot(row: Any, column: Any) -> Any:
    total: Any = Fraction(0)
    for a, b in zip(row, column, strict=True):
        total = _plus(total, _times(a, b))
    return total


def shape(matrix: list[list[Any]]) -> tuple[int, int]:
    """Rows and columns."""
    return len(matrix), len(matrix[0])


def _float(value: Any) -> Any:
    if isinstance(value, Fraction):
        return mp.mpf(value.numerator) / value.denominator
    if isinstance(value, list):
        raise Unparsable("a matrix where a number is expected")
    return value


def _bounded(value: Any) -> Any:
    value = _float(value)
    if abs(value) > 10**12:
        raise TooLarge
    return value


def _is_real(value: Any) -> bool:
    return isinstance(value, Fraction) or mp.im(value) == 0


def _real(value: Any) -> Any:
    value = _float(value)
    if mp.im(value) != 0:
        raise Undefined
    return mp.re(value)


def _chop(value: Any) -> Any:
    """Real where the imaginary part is no more than rounding."""
    if not isinstance(value, mp.mpc):
        return value
    noise = mp.mpf(10) ** (8 - mp.dps) * (1 + abs(value.real))
    return value.real if abs(value.imag) <= noise else value


def _sympify(value: Any) -> Any:
    import sympy

    return sympy.Rational(value.numerator, value.denominator) if isinstance(value, Fraction) else sympy.sympify(value)


_EXACT: dict[str, Callable[[Fraction], Fraction]] = {
    "abs": abs,
    "floor": lambda x: Fraction(x.numerator // x.denominator),
    "ceil": lambda x: Fraction(-(-x.numerator // x.denominator)),
    "sgn": lambda x: Fraction((x > 0) - (x < 0)),
}
_ANGLES = frozenset("sin cos tan cot sec csc cis".split())
_FLOATS: dict[str, Callable[[Any], Any]] = {
    **{name: getattr(mp, name) for name in "sin cos tan cot sec csc sinh cosh tanh coth exp ln arg floor ceil".split()},
    **{f"arc{name}": getattr(mp, f"a{name}") for name in "sin cos tan cot sec csc".split()},
    "arsinh": mp.asinh, "arcosh": mp.acosh, "artanh": mp.atanh, "abs": abs, "sgn": mp.sign,
    "cis": lambda x: mp.expj(x), "Re": mp.re, "Im": mp.im,
}  # fmt: skip
