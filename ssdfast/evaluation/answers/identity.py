r"""Whether two expressions are equal: exactly for numbers, by their values at random points for what has letters.

Two expressions that agree to 80 digits at several random points are equal in all but contrived cases, which decides
trigonometric, logarithmic and root identities alike in milliseconds, where simplifying a difference takes seconds or
does not end. They are compared where both are defined. Letters other than x, y, z, t, u, v, w are positive, as lengths
and counts are, unless the conventions say otherwise; counts (n, k, m, ...) are whole numbers wherever a factorial, a
sum, a binomial or a power of a negative number needs one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any

from mpmath import mp

from .arithmetic import Uncovered, Undefined, shape
from .conventions import DEFAULT, Conventions
from .errors import Unparsable
from .evaluate import Evaluator
from .scanner import Node

POINTS = 6
"""Points at which two expressions must agree."""
_TRIES = 24
_DIGITS, _AGREEING = 120, 80
_FIRST, _SURE = 50, 25
_LARGE = 400
_SIGNED = frozenset("xyztuvw") | {"\\theta", "\\alpha", "\\beta", "\\phi", "\\varphi"}
_COUNTS = frozenset("nkmjlNMKi")
_WHOLE = frozenset(("fact", "binom", "sum", "prod"))
_STEPS = frozenset(("floor", "ceil"))
INTEGERS = frozenset("knmlj") | {"\\ell"}

_FAILURES = (ArithmeticError, ValueError, TypeError)
"""What evaluating a tree raises where it has no value; Unparsable is a ValueError."""

Point = dict[str, Any]


@lru_cache(maxsize=8192)
def names(node: Any) -> frozenset[str]:
    """The names in a tree, but those that a sum or product binds."""
    if not isinstance(node, tuple) or not node:
        return frozenset()
    if node[0] == "name":
        return frozenset((node[1],))
    if node[0] == "sympy":
        return frozenset(map(str, node[1].free_symbols))
    inner = frozenset().union(*(names(part) for part in node if isinstance(part, tuple)))
    return inner - {node[1]} if node[0] in ("sum", "prod") else inner


@lru_cache(maxsize=8192)
def kinds(node: Any) -> frozenset[str]:
    """The kinds of node in a tree; "i" for the imaginary unit, "log" also for a function of that name."""
    if not isinstance(node, tuple) or not node:
        return frozenset()
    own = {node[0]} if isinstance(node[0], str) else set()
    if node[:1] == ("const",):
        own.add(node[1])
    if node[:1] == ("fn",):
        own.add(node[1])
    return frozenset(own).union(*(kinds(part) for part in node if isinstance(part, tuple)))


def equal_nodes(gold: Node, answer: Node, conventions: Conventions = DEFAULT, degree: bool = False) -> bool:
    """Whether two expressions are equal. With `degree`, a degree is π/180, otherwise 1."""
    if gold == answer:
        return True
    if "plain log" in kinds(gold) | kinds(answer) and "ln" in kinds(gold) | kinds(answer):
        gold, answer = _with_natural_logs(gold), _with_natural_logs(answer)  # programs write log for ln
    try:
        with mp.workdps(_DIGITS):
            if names(gold) or names(answer) or "call" in kinds(gold) | kinds(answer):
                return _equal_at_points(gold, answer, conventions, degree)
        return _equal_numbers(gold, answer, conventions, degree)
    except _FAILURES:
        return False


def rename(node: Any, new: dict[str, Any]) -> Any:
    """The tree with other names, or trees, in the place of some of its names."""
    if not isinstance(node, tuple) or not node:
        return node
    if node[0] == "name" and node[1] in new:
        other = new[node[1]]
        return other if isinstance(other, tuple) else ("name", other)
    return tuple(rename(part, new) for part in node)


def _with_natural_logs(node: Any) -> Any:
    if not isinstance(node, tuple):
        return node
    if node[:2] == ("fn", "plain log"):
        return ("fn", "ln", *map(_with_natural_logs, node[2:]))
    return tuple(map(_with_natural_logs, node))


def value(node: Node, point: Point, conventions: Conventions = DEFAULT, degree: bool = False) -> Any:
    """The value at a point, at mpmath's working precision."""
    angle = mp.pi / 180 if degree else Fraction(1)
    return Evaluator(point, angle, conventions.log_base == "e")(node)


def exact_value(node: Node) -> Fraction | None:
    """The value of a tree without letters where it is a fraction."""
    if names(node) or {"deg", "call", "sympy"} & kinds(node):
        return None
    try:
        with mp.workdps(15):
            result = value(node, {})
    except _FAILURES:
        return None
    return result if isinstance(result, Fraction) else None


def number_value(node: Node, digits: int = _FIRST) -> Any:
    """The real number that a tree without letters is. Raises Unparsable where it is none."""
    try:
        with mp.workdps(digits):
            result = value(node, {})
            if isinstance(result, list) or (not isinstance(result, Fraction) and mp.im(result) != 0):
                raise Unparsable("no real number")
            return result
    except _FAILURES as error:
        raise Unparsable(type(error).__name__) from None


def points(nodes: tuple[Node, ...], conventions: Conventions = DEFAULT) -> Iterator[Point]:
    """Random values for the names in the trees; the same names get the same values each time.

    Where one tree alone has an absolute value, any letter may be negative: the answer says that signs matter.
    """
    absolute = len({"abs" in kinds(node) for node in nodes}) > 1
    letters = frozenset().union(*map(names, nodes))
    used = frozenset().union(*map(kinds, nodes))
    steps = bool(used & _STEPS)  # ceil(x) - 1 is floor(x) everywhere but at whole numbers
    whole = steps or bool(used & _WHOLE) or any(_negative_base(node) for node in nodes)
    if "piecewise" in used:
        for end in sorted(frozenset().union(*map(_numbers, nodes)))[:_TRIES]:
            for offset in (Fraction(-1, 7), Fraction(0), Fraction(1, 7)):
                yield {"()": 0} | dict.fromkeys(letters, end + offset)
    for number in range(_TRIES):
        point: Point = {"()": number}  # the values of unknown functions differ from point to point
        for name in letters:
            rng = random.Random(f"{name} {number}")
            if (whole and name[0] in _COUNTS) or (steps and number % 2):
                point[name] = Fraction(rng.randint(2, 12 + number))
                continue
            size = Fraction(rng.randint(300, 3999), 1000) + Fraction(rng.randint(1, 999), 10**6)
            signed = absolute or not conventions.positive_letters or name[0] in _SIGNED or name in _SIGNED
            point[name] = -size if signed and rng.random() < 0.5 else size
        yield point


@lru_cache(maxsize=4096)
def _negative_base(node: Any) -> bool:
    """Whether a power of a negative number, or a trigonometric function of n π, needs whole exponents."""
    if not isinstance(node, tuple) or not node:
        return False
    if node[0] == "pow" and node[1][0] == "neg" and names(node[2]):
        return True
    if node[0] == "fn" and node[1] in ("sin", "cos", "tan") and "pi" in kinds(node) and names(node) <= INTEGERS:
        return bool(names(node))
    return any(_negative_base(part) for part in node if isinstance(part, tuple))


@lru_cache(maxsize=1024)
def _numbers(node: Any) -> frozenset[Fraction]:
    """The numbers in a tree."""
    if not isinstance(node, tuple) or not node:
        return frozenset()
    if node[0] == "num":
        return frozenset((node[1], -node[1]))
    return frozenset().union(*(_numbers(part) for part in node if isinstance(part, tuple)))


def _covered(node: Node, point: Point, conventions: Conventions, degree: bool) -> Any:
    """The value at a point, None where no case of a function by cases holds."""
    try:
        return value(node, point, conventions, degree)
    except Uncovered:
        return None


def _equal_at_points(gold: Node, answer: Node, conventions: Conventions, degree: bool) -> bool:
    complex_values = "i" in kinds(gold) | kinds(answer)
    by_cases = "piecewise" in kinds(gold) | kinds(answer)  # which agree only if they do at all points
    agreeing = 0
    for point in points((gold, answer), conventions):
        try:
            values = [_covered(node, point, conventions, degree) for node in (gold, answer)]
        except (Undefined, ZeroDivisionError, ValueError):
            continue
        if None in values:
            if values == [None, None]:
                continue
            return False
        ours, theirs = values
        if isinstance(ours, list) or isinstance(theirs, list):
            if not _close_matrices(ours, theirs):
                return False
        elif not complex_values and not (_real(ours) and _real(theirs)):
            continue
        elif not close(ours, theirs):
            return False
        agreeing += 1
        if agreeing == POINTS and not by_cases:
            return True
    return agreeing >= POINTS


def close(ours: Any, theirs: Any, digits: int = _AGREEING) -> bool:
    """Whether two values at a point agree."""
    if isinstance(ours, Fraction) and isinstance(theirs, Fraction):
        return ours == theirs
    ours, theirs = _as_float(ours), _as_float(theirs)
    if mp.isinf(ours) or mp.isinf(theirs):
        return bool(ours == theirs)
    return bool(abs(ours - theirs) <= mp.mpf(10) ** -digits * max(abs(ours), abs(theirs), mp.mpf(10) ** -10))


def _close_matrices(ours: Any, theirs: Any) -> bool:
    if not (isinstance(ours, list) and isinstance(theirs, list)) or shape(ours) != shape(theirs):
        return False
    return all(close(a, b) for rows in zip(ours, theirs, strict=True) for a, b in zip(*rows, strict=True))


def _equal_numbers(gold: Node, answer: Node, conventions: Conventions, degree: bool) -> bool:
    """Two numbers, at 50 digits and, where they agree, at several hundred.

    Two that are equal differ by rounding alone, which shrinks with the precision; two different ones do not.
    """
    with mp.workdps(_FIRST):
        first = [value(node, {}, conventions, degree) for node in (gold, answer)]
        if any(isinstance(side, list) for side in first):
            return _close_entries(*first)
        if all(isinstance(side, Fraction) for side in first):
            return bool(first[0] == first[1])
        early = abs(_as_float(first[0]) - _as_float(first[1]))
        if mp.isinf(_as_float(first[0])) or mp.isinf(_as_float(first[1])):
            return bool(_as_float(first[0]) == _as_float(first[1]))
        if early > mp.mpf(10) ** -_SURE * max(1, *(abs(_as_float(side)) for side in first)):
            return False
    digits = max(_LARGE, min(8000, 3 * max(_largest(gold), _largest(answer))))
    with mp.workdps(digits):
        ours, theirs = (_as_float(value(node, {}, conventions, degree)) for node in (gold, answer))
        apart, larger = abs(ours - theirs), max(abs(ours), abs(theirs))
        if larger > mp.mpf(10) ** (digits - 20):
            return False  # what is added to so large a number would not show
        if apart <= mp.mpf(10) ** (20 - digits) * larger:
            return True
        return bool(apart <= early * mp.mpf(10) ** (-digits // 2))


def _close_entries(ours: Any, theirs: Any) -> bool:
    if not (isinstance(ours, list) and isinstance(theirs, list)) or shape(ours) != shape(theirs):
        return False
    pairs = [pair for rows in zip(ours, theirs, strict=True) for pair in zip(*rows, strict=True)]
    return all(close(a, b, _FIRST - 10) for a, b in pairs)


@lru_cache(maxsize=4096)
def _largest(node: Any) -> int:
    """The largest number in a tree."""
    if not isinstance(node, tuple) or not node:
        return 0
    if node[0] == "num":
        return min(10**6, int(abs(node[1])))
    return max((_largest(part) for part in node if isinstance(part, tuple)), default=0)


def _as_float(result: Any) -> Any:
    return mp.mpf(result.numerator) / result.denominator if isinstance(result, Fraction) else result


def _real(result: Any) -> bool:
    return isinstance(result, Fraction) or bool(mp.im(result) == 0)
