"""Numbers as people read them: intervals, percentages, sizes, durations; the same on every page and terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

NBSP = "\u00a0"
_LISTED = 3
_ENDS = ("value", "ci_low", "ci_high")


class Interval(Protocol):
    """A value and its interval."""

    @property
    def value(self) -> float | None: ...
    @property
    def ci_low(self) -> float | None: ...
    @property
    def ci_high(self) -> float | None: ...


def format_interval(
    interval: Interval | Mapping[str, float | None],
    signed: bool = False,
    percent: bool = False,
    decimals: int | None = None,
) -> str:
    """A value and its interval, as in ``+0.012 [0.004, 0.021]``, from ``{value, ci_low, ci_high}``.

    The interval's width gets two digits, a value at most three, unless `decimals` says how many. percent: the value is
    a fraction, shown times 100.
    """
    given = (
        [interval[name] for name in _ENDS]
        if isinstance(interval, Mapping)
        else [interval.value, interval.ci_low, interval.ci_high]
    )
    if given[0] is None:
        return "undefined"
    scale = 100 if percent else 1
    value, *ends = (scale * x for x in given if x is not None)
    size = max(abs(x) for x in (value, *ends))
    width = max(ends) - min(ends) if ends else 0.0
    if decimals is None:
        decimals = _decimals(size, 3) if width <= 1e-3 * size else min(_decimals(size, 3), _decimals(width, 2))
    text = _fixed(value, decimals, signed) + (f"{NBSP}%" if percent else "")
    return f"{text} [{', '.join(_fixed(end, decimals) for end in ends)}]" if ends else text


def format_percent(fraction: float | None) -> str:
    """A fraction as a percentage with one decimal; – for None."""
    return "–" if fraction is None else f"{100 * fraction:.1f}{NBSP}%"


def format_p_value(p: float | None) -> str:
    """Two significant digits; – for None."""
    return "–" if p is None else f"{p:.2g}"


def format_bytes(count: float) -> str:
    """Three digits and a decimal unit: kB is 1,000 bytes."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.4g} TB"


def format_duration(seconds: float) -> str:
    """The two largest units, as in ``2 h 05 min``, ``3 min 20 s`` or ``12 s``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours:02} h"


def format_names(names: Sequence[str]) -> str:
    """The first three names and how many more there are."""
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return f"{', '.join(names[:_LISTED])}{more}"


def _decimals(size: float, digits: int) -> int:
    """Decimals that give a number of this size so many significant digits."""
    return max(0, digits - 1 - math.floor(math.log10(size))) if size > 0 and math.isfinite(size) else digits


def _fixed(value: float, decimals: int, signed: bool = False) -> str:
    """Fixed decimals, or a power of ten beyond five of them; a true minus sign, no negative zero."""
    sign = "+" if signed else ""
    if decimals > 5:
        text = f"{value:{sign}.1e}".replace("e-0", "e-")
    else:
        text = f"{value:{sign}.{decimals}f}" if round(value, decimals) else f"{0:.{decimals}f}"
    return text.replace("-", "−")
