"""The value of an expression's tree: an exact fraction where it is one, else a number of mpmath's working precision.

Sizes are bounded before anything is computed: a tower of powers raises TooLarge in microseconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from fractions import Fraction
from math import comb, factorial, gcd, lcm
from typing import Any

from mpmath import mp

from .arithmetic import TooLarge, Uncovered, Undefined, as_float, bounded, chop, plus, power, real_part, times
from .errors import Unparsable
from .scanner import Node

_MAX_TERMS = 3000
_MAX_FACTORIAL = 20_000


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
            total = plus(total, self(term))
        return total

    def _neg(self, node: Node) -> Any:
        return times(Fraction(-1), self(node))

    def _mul(self, left: Node, right: Node) -> Any:
        return times(self(left), self(right))

    def _div(self, over: Node, under: Node) -> Any:
        divisor = self(under)
        if isinstance(divisor, list):
            raise Unparsable("a division by a matrix")
        if divisor == 0:
            raise Undefined
        return times(self(over), 1 / divisor)

    def _pow(self, base: Node, exponent: Node) -> Any:
        return power(self(base), self(exponent))

    def _root(self, degree: Node, node: Node) -> Any:
        n, value = self(degree), self(node)
        return power(value, 1 / n)

    def _fact(self, node: Node) -> Any:
        value = self(node)
        if isinstance(value, Fraction) and value.denominator == 1 and 0 <= value <= _MAX_FACTORIAL:
            return Fraction(factorial(int(value)))
        return mp.factorial(bounded(value))

    def _binom(self, upper: Node, lower: Node) -> Any:
        n, k = self(upper), self(lower)
        if all(isinstance(x, Fraction) and x.denominator == 1 and 0 <= x <= _MAX_FACTORIAL for x in (n, k)):
            return Fraction(comb(int(n), int(k)))
        return mp.binomial(bounded(n), bounded(k))

    def _deg(self, node: Node) -> Any:
        return times(self.degree, self(node))

    def _log(self, base: Node, node: Node) -> Any:
        divisor = mp.log(as_float(self(base)))
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
        value = as_float(value)
        if value == 0 and name in ("ln", "cot", "csc"):
            raise Undefined
        return chop(_FLOATS[name](value))

    def _operator(self, name: str, values: list[Any]) -> Any:
        if not all(isinstance(value, Fraction) for value in values):
            if name in ("max", "min"):
                return (max if name == "max" else min)(map(real_part, values))
            raise Undefined
        if name in ("max", "min"):
            return (max if name == "max" else min)(values)
        if any(value.denominator != 1 for value in values):
            raise Undefined
        return Fraction((gcd if name == "gcd" else lcm)(*map(int, values)))

    def _call(self, name: str, *operands: Node) -> Any:
        """An unknown function: a value that depends on nothing but the function and its arguments."""
        seed = self.names.get("()", 0)
        key = ",".join(mp.nstr(as_float(self(operand)), 20) for operand in operands)
        return Fraction(random.Random(f"{name}({key}) {seed}").randint(10**6, 10**7), 10**6)

    def _series(
        self, variable: str, low: Node, high: Node, body: Node, combine: Callable[[Any, Any], Any], start: int
    ) -> Any:
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
        return self._series(variable, low, high, body, plus, 0)

    def _prod(self, variable: str, low: Node, high: Node, body: Node) -> Any:
        return self._series(variable, low, high, body, times, 1)

    def _matrix(self, rows: tuple[tuple[Node, ...], ...]) -> Any:
        return [[self(entry) for entry in row] for row in rows]

    def _det(self, rows: tuple[tuple[Node, ...], ...]) -> Any:
        return mp.det(mp.matrix([[as_float(self(entry)) for entry in row] for row in rows]))

    def _transpose(self, node: Node) -> Any:
        value = self(node)
        if not isinstance(value, list):
            raise Unparsable("a transposed number")
        return [list(row) for row in zip(*value, strict=True)]

    def _piecewise(self, *cases: tuple[Node, tuple[tuple[str, Node, Node], ...]]) -> Any:
        for value, conditions in cases:
            if all(holds(relation, self(left), self(right)) for relation, left, right in conditions):
                return self(value)
        raise Uncovered

    def _sympy(self, parsed: Any) -> Any:
        """What math-verify's parser has read, for notation that the grammar does not know: integrals, limits."""
        values = {symbol: _sympify(self._name(str(symbol))) for symbol in parsed.free_symbols}
        value = parsed.doit().subs(values).evalf(mp.dps)
        if not value.is_number:
            raise Undefined
        real, imaginary = value.as_real_imag()
        return chop(mp.mpc(mp.mpf(str(real)), mp.mpf(str(imaginary))))


def holds(relation: str, left: Any, right: Any) -> bool:
    """Whether ``left relation right`` is true of two real numbers."""
    if relation in ("=", "ne"):
        return bool(left == right) == (relation == "=")
    left, right = real_part(left), real_part(right)
    return bool({"<": left < right, ">": left > right, "le": left <= right, "ge": left >= right}[relation])


def _sympify(value: Any) -> Any:
    import sympy

    return sympy.Rational(value.numerator, value.denominator) if isinstance(value, Fraction) else sympy.sympify(value)


_EXACT: dict[str, Callable[[Fraction], Fraction]] = {
    "abs": abs,
    "floor": lambda x: Fraction(x.numerator // x.denominator),
    "ceil": lambda x: Fraction(-(-x.numerator // x.denominator)),
    "sgn": lambda x: Fraction((x > 0) - (x < 0)),
}
_ANGLES = frozenset(["sin", "cos", "tan", "cot", "sec", "csc", "cis"])
_SAME_NAMES = (
    *("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth"),
    *("exp", "ln", "arg", "floor", "ceil"),
)
"""The functions that mpmath has under the same name."""
_FLOATS: dict[str, Callable[[Any], Any]] = {
    **{name: getattr(mp, name) for name in _SAME_NAMES},
    **{f"arc{name}": getattr(mp, f"a{name}") for name in ["sin", "cos", "tan", "cot", "sec", "csc"]},
    "arsinh": mp.asinh, "arcosh": mp.acosh, "artanh": mp.atanh, "abs": abs, "sgn": mp.sign,
    "cis": lambda x: mp.expj(x), "Re": mp.re, "Im": mp.im,
}  # fmt: skip
