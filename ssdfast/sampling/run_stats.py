"""What a run has come to: how traces ended, how long they are, how fast they came, which loops were none."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..traces import files

_SECONDS = 60.0
"""of the past that the speed shown is of"""


class Speed:
    """Tokens a second, lately."""

    def __init__(self) -> None:
        self.tokens = 0
        self._marks = [(time.monotonic(), 0)]

    def add(self, tokens: int) -> None:
        self.tokens += tokens
        now = time.monotonic()
        if now - self._marks[-1][0] >= 1.0:
            self._marks.append((now, self.tokens))
            while len(self._marks) > 2 and now - self._marks[0][0] > _SECONDS:
                self._marks.pop(0)

    @property
    def tokens_a_second(self) -> float:
        then, before = self._marks[0]
        return (self.tokens - before) / max(1e-9, time.monotonic() - then)


def remark(speed: Speed, reasons: Counter[str]) -> str:
    """For the progress bar."""
    ended = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
    return f"{speed.tokens_a_second:,.0f} tokens/s" + (f", {ended}" if ended else "")


def summarize(directory: Path) -> dict[str, Any]:
    """Of the traces in a directory, JSON: the same for the same traces, however they came to be there."""
    reasons: Counter[str] = Counter()
    tokens = looped = audited = by_themselves = 0
    for file in files(directory):
        table = pq.read_table(file, columns=["completion_ids", "finish_reason", "loop_at"])
        reasons.update(table["finish_reason"].to_pylist())
        tokens += pc.sum(pc.list_value_length(table["completion_ids"])).as_py() or 0
        seen = table.filter(pc.is_valid(table["loop_at"]))["finish_reason"].to_pylist()
        looped += len(seen)
        audited += sum(reason != "loop" for reason in seen)
        by_themselves += sum(reason == "stop" for reason in seen)
    return {
        "traces": reasons.total(),
        "finish_reasons": dict(sorted(reasons.items())),
        "tokens": tokens,
        "loops": {"seen": looped, "ran_on": audited, "ended_by_themselves": by_themselves},
    }


def told(summary: dict[str, Any]) -> str:
    """A few lines for the terminal."""
    ended = ", ".join(f"{count:,} {reason}" for reason, count in summary["finish_reasons"].items())
    lines = [f"{summary['traces']:,} traces of {summary['tokens']:,} tokens: {ended}"]
    loops = summary["loops"]
    if loops["ran_on"]:
        lines.append(
            f"of {loops['seen']:,} loops {loops['ran_on']:,} ran on for the audit, and"
            f" {loops['ended_by_themselves']:,} of these ended by themselves"
        )
    return "\n".join(lines)
