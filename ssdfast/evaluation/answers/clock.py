"""Times of day and ratios: ``2:30`` is a time, ``2:3`` and ``3:4:5`` are ratios."""

from __future__ import annotations

import re

from .types import Clock

_CLOCK = re.compile(
    r"(?P<hours>[0-9]{1,2})(?:\s*:\s*(?P<minutes>[0-5][0-9])(?:\s*:\s*(?P<seconds>[0-5][0-9]))?)?"
    r"(?:\s*(?P<half>[AaPp])\.?\s*[Mm]\.?|\s*(?P<clock>o'?clock))?"
)
_NAMED = {"noon": (12, "p"), "midday": (12, "p"), "midnight": (0, "a")}
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")


def parse_clock(text: str) -> Clock | None:
    """The time of day that `text`, as `normalize` spells it, states; None for anything else, also for ``2:3``."""
    plain = " ".join(_TEXT.sub(r" \1 ", text).split())
    if plain.lower() in _NAMED:
        hours, half = _NAMED[plain.lower()]
        return Clock(hours * 3600, half, plain)
    match = _CLOCK.fullmatch(plain)
    if not match or not (match["minutes"] or match["half"] or match["clock"]):
        return None
    hours, half = int(match["hours"]), (match["half"] or "").lower()
    if hours > 24 or (half and not 1 <= hours <= 12):
        return None
    if half:
        hours = hours % 12 + (12 if half == "p" else 0)
    elif hours > 12:
        half = "p"
    return Clock(hours * 3600 + 60 * int(match["minutes"] or 0) + int(match["seconds"] or 0), half, plain)


def equal_clocks(gold: Clock, answer: Clock) -> bool:
    """Whether two times are the same; where one does not say a.m. or p.m., on a dial of twelve hours."""
    if gold.half and answer.half:
        return gold.seconds == answer.seconds
    return (gold.seconds - answer.seconds) % (12 * 3600) == 0
