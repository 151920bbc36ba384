"""Loop detection: a completion that repeats one period of tokens is detected while it is sampled.

The rule is exact and the same for every engine: a loop ends at the first token at which, for some period p up to
`max_period`, the last min_repeats * p tokens, and at least `min_tokens`, repeat the same p tokens. Nearly all text has
no such period, so whole chunks are compared with the past at once; only a period that matched a chunk is then followed
token by token.

Shape legend: C tokens of a chunk, P periods 1..max_period.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

CHUNK = 16


@dataclass(frozen=True)
class LoopRule:
    """At least min_repeats >= 2 times a period of at most max_period tokens, in total min_tokens >= 4 * CHUNK."""

    min_repeats: int = 4
    min_tokens: int = 128
    max_period: int = 1024

    def __post_init__(self) -> None:
        if self.min_repeats < 2 or self.max_period < 1 or self.min_tokens < 4 * CHUNK:
            raise ValueError(f"a loop has at least 2 repetitions and {4 * CHUNK} tokens, got {self}")

    def matches_needed(self, period: int) -> int:
        """The number of consecutive tokens that must equal the token one period before."""
        return max(self.min_repeats * period, self.min_tokens) - period


class LoopDetector:
    """Detects the first loop of one completion."""

    def __init__(self, rule: LoopRule) -> None:
        self.rule = rule
        self.num_tokens = 0
        self.loop_at: int | None = None
        """The number of tokens up to the end of the loop."""
        # A period is followed from its first whole chunk on, when less than two chunks have matched. -1 is no token.
        self._past = np.full(rule.max_period + 2 * CHUNK, -1, np.int64)  # newest last
        self._waiting: list[int] = []  # tokens of the current chunk
        self._followed: dict[int, int] = {}  # period: number of consecutive matches

    def feed(self, tokens: Iterable[int]) -> bool:
        """Process sampled tokens; True once a loop is detected. Tokens after that are ignored."""
        for token in tokens:
            if self.loop_at is not None:
                break
            self.num_tokens += 1
            self._waiting.append(token)
            if self._followed:
                self._follow(token)
            if len(self._waiting) == CHUNK:
                self._compare_chunk()
        return self.loop_at is not None

    def _follow(self, token: int) -> None:
        for period, run in list(self._followed.items()):
            if self._before(period) != token:
                del self._followed[period]
                continue
            self._followed[period] = run + 1
            if run + 1 >= self.rule.matches_needed(period):
                self.loop_at = self.num_tokens

    def _before(self, period: int) -> int:
        """The token `period` before the newest."""
        place = len(self._waiting) - 1 - period
        return self._waiting[place] if place >= 0 else int(self._past[place])

    def _compare_chunk(self) -> None:
        past = self._past
        past[:-CHUNK] = past[CHUNK:].copy()
        past[-CHUNK:] = self._waiting
        self._waiting.clear()
        # Row p - 1 of the windows ends p tokens before the chunk does: the chunk as it would be with that period.
        windows_PC = sliding_window_view(past[:-1], CHUNK)[::-1][: self.rule.max_period]
        # Two columns are compared first: they rule out almost every period.
        candidates_P = np.flatnonzero((windows_PC[:, -1] == past[-1]) & (windows_PC[:, 0] == past[-CHUNK]))
        whole = (windows_PC[candidates_P] == past[-CHUNK:]).all(1)
        for period in (candidates_P[whole] + 1).tolist():
            if period not in self._followed:
                self._followed[period] = self._run(period)

    def _run(self, period: int) -> int:
        """The number of consecutive tokens, up to the newest, that equal the token one period before; limited by the
        length of the past."""
        past = self._past
        differ = np.flatnonzero(past[period:] != past[:-period])
        return len(past) - period - 1 - int(differ[-1]) if differ.size else len(past) - period
