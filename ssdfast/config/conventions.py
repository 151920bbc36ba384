"""Settings of grading on which benchmarks disagree."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import Settings


class ConventionsConfig(Settings):
    """When an answer counts as equal to the gold answer, where benchmarks disagree."""

    exact_decimals: Annotated[int, Field(ge=0)] = 9
    """Number of decimal places from which on a decimal counts as the exact number that it is the rounding of: with 9,
    0.333333333 is 1/3 and 0.333333 is not. 0 never takes a decimal for another number."""
    round_to_gold: bool = False
    """Accept an answer that rounds to a decimal gold answer: 2/3 where the gold answer is 0.67."""
    percent_as_decimal: bool = True
    """Accept 0.25 and 1/4 for 25 %, and the reverse."""
    percent_sign_optional: bool = True
    """Accept 25 for 25 %, where the gold answer counts percents."""
    units_optional: bool = True
    """Accept a missing unit on one side. Two different units are never equal."""
    convert_units: bool = True
    """Accept 5000 m for 5 km."""
    reduced_form: bool = False
    """Require fractions in lowest terms, so that 6/8 is not 3/4."""
    ordered_lists: bool = False
    """Count the order in a list without brackets. It always counts in (1, 2) and never in {1, 2}."""
    ignore_case: bool = True
    """Ignore the case of words and of the letters of choices. The case of a variable always counts."""
    decimal_comma: bool = True
    """Read 1,22 as 1.22 where the gold answer is a single number."""
    positive_letters: bool = True
    """Take letters other than x, y, z, t, u, v and w for positive numbers, so that the root of a^2 is a."""
    log_base: Literal["10", "e"] = "10"
    """The base of a log without one."""
