r"""Plain numbers, compared exactly and without a parser. Most answers are plain numbers, graded in microseconds.

Where both answers are plain numbers the result is math-verify's: equal where exact, and where one is a decimal, equal
when rounded to six decimals. Here small numbers must in addition agree to five digits, so that 10^-8 is not 2·10^-8.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_MAX_CHARACTERS = 4000  # Python converts no longer text to int
_PLACES = 6
_RELATIVE = Fraction(1, 10**5)

_DIGITS = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_PATTERN = re.compile(
    rf"(?P<sign>[-+]?)\s*(?:(?P<decimal>{_DIGITS})(?:\s*\\cdot\s*10\s*\^\s*(?:\{{\s*(?P<e>[-+]?[0-9]{{1,4}})\s*\}}|(?P<f>[0-9])))?"
    r"|\\frac\s*(?:\{\s*(?P<a>-?[0-9]+)\s*\}\s*\{\s*(?P<b>[0-9]+)\s*\}|(?P<c>[0-9])\s*(?P<d>[0-9])(?![0-9]))"
    r"|(?P<n>[0-9]+)\s*/\s*(?P<m>[0-9]+))\s*(?P<percent>%?)"
)


@dataclass(frozen=True)
class Number:
    """A rational number. `exact` is False for one with a decimal point; `value` is without the percent sign's 1/100."""

    value: Fraction
    exact: bool
    percent: bool = False


def number(text: str) -> Number | None:
    """The plain number that `text`, as `normalize` spells it, is; None for anything else."""
    if len(text) > _MAX_CHARACTERS or not (match := _PATTERN.fullmatch(text)):
        return None
    if match["decimal"]:
        value = Fraction(match["decimal"] if match["decimal"][-1] != "." else match["decimal"][:-1])
        if power := match["e"] or match["f"]:
            value *= Fraction(10) ** int(power)
    else:
        over, under = (int(match["a"] or match["c"] or match["n"]), int(match["b"] or match["d"] or match["m"]))
        if under == 0:
            return None
        value = Fraction(over, under)
    exact = not (match["decimal"] and "." in match["decimal"])
    return Number(-value if match["sign"] == "-" else value, exact, bool(match["percent"]))


def equal_number(gold: Number, answer: Number) -> bool:
    """Whether the two agree; a percent sign may be a unit that the other leaves out.

    "50%" agrees with 0.5 and with 50; 0.5 does not agree with "0.5%", for what is below 1 is no count of percents.
    """
    if gold.percent == answer.percent:
        return _agree(gold.value, answer.value, gold.exact and answer.exact)
    if _agree(_as_fraction(gold), _as_fraction(answer), gold.exact and answer.exact):
        return True
    counts_percents = gold.percent or abs(gold.value) > 1
    return counts_percents and _agree(gold.value, answer.value, gold.exact and answer.exact)


def _as_fraction(number: Number) -> Fraction:
    return number.value / 100 if number.percent else number.value


def _agree(gold: Fraction, answer: Fraction, exact: bool) -> bool:
    if gold == answer or exact:
        return gold == answer
    if round(gold, _PLACES) != round(answer, _PLACES):
        return False
    return abs(gold - answer) <= _RELATIVE * max(abs(gold), abs(answer))
