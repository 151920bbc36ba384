r"""Whether two expressions are equal but for the letters of arbitrary constants and of whole numbers."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations

from .conventions import DEFAULT, Conventions
from .identity import INTEGERS, equal_nodes, kinds, names, rename
from .scanner import Node

_CONSTANTS = frozenset("CAKBDc") | {f"{letter}_{n}" for letter in "CcAK" for n in "0123"}


def equal_up_to_constants(gold: Node, answer: Node, conventions: Conventions = DEFAULT) -> bool:
    r"""Whether two expressions are equal but for the letters of arbitrary constants and whole numbers.

    ``Ce^x`` and ``Ae^x``, ``k\pi`` and ``n\pi``. A whole number must stand beside π, as in solutions of a
    trigonometric equation, and may be shifted or negated.
    """
    ours, theirs = names(gold), names(answer)
    if len(ours) != len(theirs):
        return False
    left, right = sorted(ours - theirs), sorted(theirs - ours)
    if left and _CONSTANTS.issuperset((*left, *right)) and ours & theirs | ({"e"} & kinds(gold)):
        return any(
            equal_nodes(gold, rename(answer, dict(zip(right, order, strict=True))), conventions)
            for order in permutations(left)
        )
    integers = ours & INTEGERS, theirs & INTEGERS
    if ours - theirs <= INTEGERS and theirs - ours <= INTEGERS and len(integers[0]) == len(integers[1]) == 1:
        (k,), (n,) = integers
        if "pi" in kinds(gold) or "deg" in kinds(gold):
            return equal_progressions(gold, answer, k, n, conventions)
    return False


def equal_progressions(
    gold: Node, answer: Node, k: str, n: str, conventions: Conventions = DEFAULT, shifts: bool = True
) -> bool:
    """Whether `gold` for all whole k and `answer` for all whole n are the same values; without `shifts`, for k = n."""
    for sign in (1, -1) if shifts else (1,):
        for shift in range(-2, 3) if shifts else (0,):
            index: Node = ("add", ("mul", ("num", Fraction(sign)), ("name", k)), ("num", Fraction(shift)))
            if equal_nodes(gold, rename(answer, {n: index}), conventions):
                return True
    return False
