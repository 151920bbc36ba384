"""What benchmarks disagree about: each convention of grading is a named setting with its default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Conventions:
    """When two answers count as equal. Every setting is independent of the others."""

    exact_decimals: int = 9
    """A decimal with at least this many places counts as the exact number that it is the rounding of: with 9,
    0.333333333 is 1/3 and 0.333333 is not. 0 never takes a decimal for another number."""
    round_to_gold: bool = False
    """Whether an answer that rounds to a decimal gold answer is correct: 2/3 where the gold answer is 0.67."""
    percent_as_decimal: bool = True
    """Whether 0.25 and 1/4 equal 25 %."""
    percent_sign_optional: bool = True
    """Whether 25 equals 25 %, where the gold answer counts percents."""
    units_optional: bool = True
    """Whether a unit may be missing on one side. Two different units are never equal."""
    convert_units: bool = True
    """Whether 5000 m equals 5 km."""
    reduced_form: bool = False
    """Whether a fraction must be in lowest terms, so that 6/8 is not 3/4."""
    ordered_lists: bool = False
    """Whether the order counts in a list without brackets. It always counts in (1, 2) and never in {1, 2}."""
    ignore_case: bool = True
    """Whether the case of words and of the letters of choices is ignored. The case of a variable always counts."""
    decimal_comma: bool = True
    """Whether 1,22 is read as 1.22 where the gold answer is a single number."""
    positive_letters: bool = True
    r"""Whether letters other than x, y, z, t, u, v, w stand for positive numbers, so that \sqrt{a^2} equals a."""
    log_base: Literal["10", "e"] = "10"
    r"""The base of \log without one."""


DEFAULT = Conventions()
