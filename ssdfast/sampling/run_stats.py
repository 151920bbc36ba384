"""Statistics of a sampling run: finish reasons, tokens, speed, and loops that would have ended naturally."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..schemas import SamplingSummary
from ..traces import shards

_SECONDS = 60.0
"""The length of the period that the displayed speed is averaged over."""


class Speed:
    """An amount per second over the last minute, such as tokens."""

    def __init__(self) -> None:
        self.amount = 0.0
        self._begun = time.monotonic()
        self._marks = [(self._begun, 0.0)]

    def add(self, amount: float) -> None:
        self.amount += amount
        now = time.monotonic()
        if now - self._marks[-1][0] >= 1.0:
            self._marks.append((now, self.amount))
            while len(self._marks) > 2 and now - self._marks[0][0] > _SECONDS:
                self._marks.pop(0)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._begun

    @property
    def per_second(self) -> float:
        start, before = self._marks[0]
        return (self.amount - before) / max(1e-9, time.monotonic() - start)


def format_progress(speed: Speed, finish_reasons: Counter[str]) -> str:
    """The note of the progress bar."""
    counts = ", ".join(f"{count:,} {reason}" for reason, count in finish_reasons.most_common())
    return f"{speed.per_second:,.0f} tokens/s" + (f", {counts}" if counts else "")


def summarize(directory: Path) -> dict[str, Any]:
    """Statistics of the traces in a directory, as JSON. They depend on the traces only."""
    finish_reasons: Counter[str] = Counter()
    tokens = detected = continued = ended_naturally = 0
    for file in shards(directory):
        table = pq.read_table(
            file.absolute(), columns=["completion_ids", "finish_reason", "loop_at"], partitioning=None
        )
        finish_reasons.update(table["finish_reason"].to_pylist())
        tokens += pc.sum(pc.list_value_length(table["completion_ids"])).as_py() or 0
        with_loop = table.filter(pc.is_valid(table["loop_at"]))["finish_reason"].to_pylist()
        detected += len(with_loop)
        continued += sum(reason != "loop" for reason in with_loop)
        ended_naturally += sum(reason == "stop" for reason in with_loop)
    return {
        "traces": finish_reasons.total(),
        "finish_reasons": dict(sorted(finish_reasons.items())),
        "tokens": tokens,
        "loops": {"detected": detected, "continued_for_audit": continued, "ended_naturally": ended_naturally},
    }


def format_summary(summary: SamplingSummary) -> str:
    """The statistics as lines for the terminal."""
    counts = ", ".join(f"{count:,} {reason}" for reason, count in summary.finish_reasons.items())
    lines = [f"{summary.traces:,} traces of {summary.tokens:,} tokens: {counts}"]
    loops = summary.loops
    if loops.continued_for_audit:
        lines.append(
            f"of {loops.detected:,} loops, {loops.continued_for_audit:,} continued for the audit, and"
            f" {loops.ended_naturally:,} of these ended naturally"
        )
    return "\n".join(lines)
