"""The tree that an answer is parsed into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .numeric import Number
from .regions import Pieces
from .scanner import Node
from .units import Unit


@dataclass(frozen=True)
class Words:
    text: str
    """The content words in the form in which they are compared."""


@dataclass(frozen=True)
class Symbols:
    """Notation that the grammar cannot read, such as a chemical formula: compared token by token."""

    text: str


@dataclass(frozen=True)
class Value:
    """A number or an expression, with the unit or the noun after it."""

    text: str
    number: Number | None
    """None for what is no plain number."""
    node: Node
    unit: Unit | None = None
    label: tuple[str, ...] = ()
    percent: bool = False


@dataclass(frozen=True)
class Based:
    """A numeral in a base, compared digit by digit."""

    digits: str
    base: str


@dataclass(frozen=True)
class Residue:
    """An integer modulo another."""

    value: int
    """As stated, not reduced."""
    modulus: int
    name: str = ""


@dataclass(frozen=True)
class Clock:
    """A time of day, in seconds after midnight; with "a.m." or "p.m." where the answer says so."""

    seconds: int
    half: str = ""
    text: str = ""


@dataclass(frozen=True)
class Ratio:
    """``3:4:5``, equal to ``6:8:10``."""

    parts: tuple[Value, ...]


@dataclass(frozen=True)
class Choices:
    """Several letters of choices, or circled numbers."""

    letters: frozenset[str]


@dataclass(frozen=True)
class Items:
    kind: Literal["tuple", "set", "list"]
    """A tuple is ordered, a set has each value once, a list is without brackets and in any order."""
    items: tuple[Answer, ...]
    brackets: str = ""
    """"or" for a list of alternatives, "=" for a tuple of named values, "cup" or "cap" for sets with names."""
    names: tuple[str, ...] = ()
    """The names of the values of a tuple that is stated as x = 1, y = 2."""


@dataclass(frozen=True)
class Region:
    """Real numbers: an interval, a union, the solutions of an inequality."""

    pieces: Pieces
    name: str = ""
    """The name of the variable, where the answer has one."""
    domain: str = ""
    """Z or N where only whole numbers are meant."""


@dataclass(frozen=True)
class Relations:
    """Inequalities between several quantities: each expression is positive, or not negative where it is not strict."""

    relations: tuple[tuple[bool, Node], ...]


@dataclass(frozen=True)
class Progression:
    """The values of an expression for all whole numbers k."""

    node: Node
    index: str
    natural: bool = False
    """Whether k is a natural number, so that it cannot be shifted."""


@dataclass(frozen=True)
class Equation:
    text: str
    kind: Literal["name", "quantity", "requested", "equation"]
    """A name or another quantity has the right side as its value, one that is "requested" only as a gold answer; an
    equation between unknowns has no value."""
    name: str
    value: Answer
    """The right side."""
    left: Node | None = None
    right: Node | None = None
    parameters: tuple[str, ...] = ()
    """The arguments of the function that the equation defines."""
    in_words: bool = False
    """Whether the left side is in words."""


Answer = (
    Words | Symbols | Value | Based | Residue | Clock | Ratio | Choices | Items | Region | Relations | Progression
    | Equation
)  # fmt: skip
