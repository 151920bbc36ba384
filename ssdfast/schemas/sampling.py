"""sampling.json: what a run of sampling has made."""

from __future__ import annotations

from typing import Any

from .base import JsonFile, Record


class LoopCounts(Record):
    """Traces in which the loop rule found a loop."""

    detected: int
    continued_for_audit: int
    """Those that were not stopped, to see what would have become of them."""
    ended_naturally: int
    """Of these, the ones that the model ended itself."""


class SamplingSummary(JsonFile):
    """Counts of traces and tokens."""

    traces: int
    finish_reasons: dict[str, int]
    """The number of traces by finish reason."""
    tokens: int
    """The number of completion tokens."""
    loops: LoopCounts
    skipped_problems: dict[str, Any]
    """The problems that were skipped and why."""
    first_failure: str
    """The reason of the first trace that failed, "" where none did."""
