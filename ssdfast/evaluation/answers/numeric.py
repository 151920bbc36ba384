r"""Plain numbers, compared exactly and without a parser. Most answers are plain numbers, graded in microseconds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from math import gcd

from .conventions import DEFAULT, Conventions

_MAX_CHARACTERS = 4000  # Python converts no longer text to int
_SIGNIFICANT = 5
"""The digits, from the first that is not zero, that a decimal needs to count as another number."""

_DIGITS = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_PATTERN = re.compile(
    rf"(?P<sign>[-+]?)\s*(?:(?P<decimal>{_DIGITS})(?:\s*\\cdot\s*10\s*\^\s*(?:\{{\s*(?P<e>[-+]?[0-9]{{1,4}})\s*\}}|(?P<f>-?[0-9]{{1,4}})))?"
    r"|\\frac\s*(?:\{\s*(?P<a>-?[0-9]+)\s*\}\s*\{\s*(?P<b>[0-9]+)\s*\}|(?P<c>[0-9])\s*(?P<d>[0-9])(?![0-9]))"
    r"|(?P<n>[0-9]+)\s*/\s*(?P<m>[0-9]+))\s*(?P<percent>%?)"
)
_RATIO = re.compile(r"\\frac\s*\{?\s*-?([0-9]+)\s*\}?\s*\{?\s*([0-9]+)\s*\}?|([0-9]+)\s*/\s*([0-9]+)")


@dataclass(frozen=True)
class Number:
    """A rational number. `value` is without the percent sign's 1/100."""

    value: Fraction
    places: int | None = None
    """The digits after the decimal point of a decimal, None for an integer or a fraction."""
    percent: bool = False


def number(text: str) -> Number | None:
    """The plain number that `text`, as `normalize` spells it, is; None for anything else."""
    if len(text) > _MAX_CHARACTERS or not (match := _PATTERN.fullmatch(text)):
        return None
    places = None
    if match["decimal"]:
        value = Fraction(match["decimal"] if match["decimal"][-1] != "." else match["decimal"][:-1])
        if "." in match["decimal"]:
            places = len(match["decimal"].partition(".")[2])
        if power := match["e"] or match["f"]:
            value *= Fraction(10) ** int(power)
            places = None if places is None else places - int(power)
    else:
        over, under = (int(match["a"] or match["c"] or match["n"]), int(match["b"] or match["d"] or match["m"]))
        if under == 0:
            return None
        value = Fraction(over, under)
    return Number(-value if match["sign"] == "-" else value, places, bool(match["percent"]))


def equal_number(gold: Number, answer: Number, conventions: Conventions = DEFAULT) -> bool:
    """Whether the two agree; a percent sign may be a unit that the other leaves out.

    "50%" agrees with 0.5 and with 50; 0.5 does not agree with "0.5%", for what is below 1 is no count of percents.
    """
    if gold.percent == answer.percent:
        return _agree(gold, answer, conventions)
    if conventions.percent_as_decimal and _agree(_as_fraction(gold), _as_fraction(answer), conventions):
        return True
    counts_percents = gold.percent or abs(gold.value) > 1
    return conventions.percent_sign_optional and counts_percents and _agree(gold, answer, conventions)


def _as_fraction(number: Number) -> Number:
    if not number.percent:
        return number
    return Number(number.value / 100, None if number.places is None else number.places + 2)


def _agree(gold: Number, answer: Number, conventions: Conventions) -> bool:
    if gold.value == answer.value:
        return True
    if conventions.round_to_gold and gold.places is not None and rounds_to(answer.value, gold.value, gold.places):
        return True
    if (gold.places is None) == (answer.places is None):
        return False
    exact, decimal = (gold, answer) if gold.places is None else (answer, gold)
    assert decimal.places is not None
    return stands_for(decimal, exact.value, conventions)


def stands_for(decimal: Number, exact: Fraction, conventions: Conventions) -> bool:
    """Whether a decimal has the places to count as the exact number, and is the rounding of it."""
    places = decimal.places
    if not conventions.exact_decimals or places is None or places < conventions.exact_decimals:
        return False
    return abs(decimal.value) * 10**places >= 10 ** (_SIGNIFICANT - 1) and rounds_to(exact, decimal.value, places)


def rounds_to(value: Fraction, decimal: Fraction, places: int) -> bool:
    """Whether `decimal`, of so many places, is what `value` rounds to."""
    return abs(value - decimal) * 2 * Fraction(10) ** places <= 1


def is_reduced(text: str) -> bool:
    """Whether every fraction of two whole numbers in `text` is in lowest terms."""
    pairs = ((int(m[1] or m[3]), int(m[2] or m[4])) for m in _RATIO.finditer(text) if len(m.group()) < 2000)
    return all(under > 1 and gcd(over, under) == 1 for over, under in pairs)
