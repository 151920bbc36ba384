"""Ratios, times of day that look like them, and fractions beside them."""

from __future__ import annotations

from fractions import Fraction
from math import gcd

from .clock import equal_clocks
from .compare_values import equal_value, nodes_equal
from .conventions import Conventions
from .numeric import Number
from .types import Answer, Clock, Ratio, Value


def equal_ratios(gold: Answer, answer: Answer, conventions: Conventions) -> bool:
    """Whether two answers are the same ratio or time, one of them being a ratio or a time."""
    if isinstance(gold, Clock) and isinstance(answer, Clock):
        return equal_clocks(gold, answer)
    if isinstance(gold, Clock) and isinstance(answer, Ratio):
        return False
    ours, theirs = _ratio(gold, answer), _ratio(answer, gold)
    if ours is None or theirs is None or len(ours) != len(theirs):
        return False
    if len(ours) > 1 and any(part.number == Number(Fraction(0)) for part in (*ours, *theirs)):
        return all(equal_value(a, b, conventions) for a, b in zip(ours, theirs, strict=True))
    pairs = zip(ours[1:], theirs[1:], strict=True)
    return all(
        nodes_equal(("mul", ours[0].node, b.node), ("mul", theirs[0].node, a.node), conventions) for a, b in pairs
    )


def _ratio(answer: Answer, other: Answer) -> tuple[Value, ...] | None:
    """The parts of a ratio; a fraction is one of two parts, and what looks like a time may be one too."""
    if isinstance(answer, Ratio):
        return answer.parts
    if isinstance(answer, Clock) and ":" in answer.text and answer.text[-1].isdigit():
        counts = [Fraction(part) for part in answer.text.split(":")]
        if isinstance(other, Value) and (len(counts) > 2 or gcd(*map(int, counts)) > 1):
            return None
        return tuple(Value(str(count), Number(count), ("num", count)) for count in counts)
    if (
        isinstance(answer, Value)
        and not answer.unit
        and not answer.percent
        and not (answer.number and answer.number.value.denominator == 1)
    ):
        return (answer, Value("1", Number(Fraction(1)), ("num", Fraction(1))))
    return None
