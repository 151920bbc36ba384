"""The tree that an answer is parsed into, and the sympy objects of its leaves."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any, Literal

from .latex import Unparsable, interval
from .numeric import Number


@dataclass(frozen=True)
class Words:
    text: str


@dataclass(frozen=True)
class Value:
    """A number, or any other expression that sympy has an object for."""

    text: str
    number: Number | None
    sympy: Any
    """None where `number` is the whole value."""
    unit: str = ""


@dataclass(frozen=True)
class Based:
    """A numeral in a base, compared digit by digit."""

    digits: str
    base: str


@dataclass(frozen=True)
class Residue:
    """An integer modulo another."""

    value: int
    modulus: int
    name: str = ""


@dataclass(frozen=True)
class Items:
    kind: Literal["tuple", "set", "list"]
    """A tuple is ordered, a set has each value once, a list is without brackets and in any order."""
    items: tuple[Answer, ...]
    brackets: str = ""


@dataclass(frozen=True)
class Region:
    """Real numbers: an interval, a union, the solutions of an inequality."""

    sympy: Any
    name: str = ""
    """The name of the variable, where the answer has one."""
    relation: Any = None


@dataclass(frozen=True)
class Equation:
    text: str
    name: str
    """The left side, if it is a name; the rest is then its value."""
    value: Answer


Answer = Words | Value | Based | Residue | Items | Region | Equation


def as_region(answer: Answer) -> Any:
    """The sympy set that an answer can be taken for, None where there is none."""
    if isinstance(answer, Region):
        return answer.sympy
    if isinstance(answer, Items) and all(isinstance(item, Value) for item in answer.items):
        values = [exact_sympy(item) for item in answer.items if isinstance(item, Value)]
        if answer.kind == "set":
            from sympy import FiniteSet

            return FiniteSet(*values)
        if len(values) == 2 and answer.brackets in ("()", "[]"):
            try:
                return interval(values[0], values[1], answer.brackets)
            except Unparsable:
                return None
    return None


def exact_sympy(value: Value) -> Any:
    """The value as a sympy object, a decimal as the fraction that it is."""
    if value.number is None:
        return value.sympy
    from sympy import Rational

    return Rational(value.number.value.numerator, value.number.value.denominator)


def as_sympy(value: Value) -> Any:
    """The value as a sympy object; a decimal as a Float, which math-verify compares to six places."""
    if value.number is not None and not value.number.exact:
        from sympy import Float

        return Float(_decimal(value.number.value), 30)
    return exact_sympy(value)


def _decimal(value: Fraction) -> str:
    context = Context(prec=40)
    return str(context.divide(Decimal(value.numerator), Decimal(value.denominator)))
