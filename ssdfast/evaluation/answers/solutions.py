"""Whether two equations or inequalities have the same solutions, and whether two define the same function."""

from __future__ import annotations

from fractions import Fraction

from mpmath import mp

from .conventions import Conventions
from .errors import Unparsable
from .identity import close, names, points, rename, value
from .scanner import Node
from .types import Equation, Value

_POINTS = 6


def same_solutions(gold: Node, answer: Node, conventions: Conventions, positive: bool = False) -> bool:
    """Whether one expression is the other times a number (with `positive`, one above 0), fractions cleared."""
    for ours, theirs in ((gold, answer), (_numerator(gold)[0], _numerator(answer)[0])):
        if _proportional(ours, theirs, conventions, positive):
            return True
        if positive:
            return False
    return False


def _proportional(gold: Node, answer: Node, conventions: Conventions, positive: bool) -> bool:
    ratio, count = None, 0
    if names(gold) != names(answer):
        return False
    try:
        with mp.workdps(120):
            for point in points((gold, answer), conventions):
                try:
                    ours, theirs = value(gold, point, conventions), value(answer, point, conventions)
                except (ArithmeticError, ValueError):
                    continue
                if isinstance(ours, list) or isinstance(theirs, list) or ours == 0 or theirs == 0:
                    continue
                if not isinstance(ours, Fraction) or not isinstance(theirs, Fraction):
                    ours, theirs = (
                        mp.mpf(x.numerator) / x.denominator if isinstance(x, Fraction) else x for x in (ours, theirs)
                    )
                if ratio is None:
                    ratio = ours / theirs
                    if positive and not (mp.im(ratio) == 0 and mp.re(ratio) > 0):
                        return False
                elif not close(ours / theirs, ratio):
                    return False
                count += 1
                if count == 6:
                    return True
    except (Unparsable, TypeError):
        return False
    return False


def _numerator(node: Node) -> tuple[Node, Node]:
    """A tree as one fraction, its numerator and denominator."""
    one: Node = ("num", Fraction(1))
    kind = node[0]
    if kind == "div":
        (a, b), (c, d) = _numerator(node[1]), _numerator(node[2])
        return ("mul", a, d), ("mul", b, c)
    if kind == "mul":
        (a, b), (c, d) = _numerator(node[1]), _numerator(node[2])
        return ("mul", a, c), ("mul", b, d)
    if kind == "neg":
        a, b = _numerator(node[1])
        return ("neg", a), b
    if kind == "pow" and node[2][0] == "neg":
        a, b = _numerator(("pow", node[1], node[2][1]))
        return b, a
    if kind == "pow" and node[2][0] == "num":
        a, b = _numerator(node[1])
        return ("pow", a, node[2]), ("pow", b, node[2])
    if kind == "add":
        total, under = _numerator(node[1])
        for term in node[2:]:
            a, b = _numerator(term)
            if b == under:
                total = ("add", total, a)
            else:
                total, under = ("add", ("mul", total, b), ("mul", a, under)), ("mul", under, b)
        return total, under
    return node, one


def defines_function(equation: Equation) -> bool:
    return bool(equation.parameters) or (
        equation.name == "y" and isinstance(equation.value, Value) and bool(names(equation.value.node))
    )


def with_argument(equation: Equation) -> Node | None:
    """The right side of a function's equation, with one name for its argument."""
    if not isinstance(equation.value, Value):
        return None
    argument = equation.parameters[0] if equation.parameters else "x"
    new = "x of the function"
    return rename(equation.value.node, {argument: new}) if len(equation.parameters) < 2 else equation.value.node


def marks(equation: Equation) -> tuple[int, bool]:
    """The primes of a function's name, and whether it is an inverse."""
    return equation.name.count("'"), "^-1" in equation.name
