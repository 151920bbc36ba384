"""The time that a sampling run still takes, also while one batch holds all of its traces.

Lengths are taken to be those of a constant hazard: each token ends a trace with the probability h, estimated from the
traces that have ended and the tokens sampled so far, and no trace is longer than the maximum. A step of n traces is
taken to cost a part that does not depend on n (weights are read once) and a part in proportion to n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .engine import Completion
from .run_stats import Speed

_FIXED = 0.4
"""The part of a full batch's step that one trace alone would take too, as measured with 32 traces of a 135M model on a
CPU (0.42); on a GPU it is larger, and batches drain for a small part of a run."""
_MIN_SECONDS = 1.0
_EULER_GAMMA = 0.5772


class Forecast:
    """max_tokens: of each trace to sample. capacity: how many traces the engine samples at the same time."""

    def __init__(self, max_tokens: Sequence[int], capacity: int) -> None:
        self.unfinished, self.capacity = len(max_tokens), capacity
        self.max_tokens = sum(max_tokens) / max(1, len(max_tokens))
        self.speed = Speed()
        self._ended = 0
        self._finished_tokens = 0

    def add_tokens(self, tokens: int) -> None:
        self.speed.add(tokens)

    def finish(self, completion: Completion) -> None:
        self.unfinished -= 1
        self._finished_tokens += len(completion.ids)
        self._ended += completion.finish_reason in ("stop", "loop")

    def seconds_left(self) -> float | None:
        """None before anything is known."""
        rate = self.speed.tokens_per_second
        if not self.unfinished:
            return 0.0
        if self.speed.seconds < _MIN_SECONDS or not rate:
            return None
        batch = min(self.capacity, self.unfinished)
        length = max(0.0, self.speed.tokens - self._finished_tokens) / batch
        hazard = self._ended / self.speed.tokens
        room = max(1.0, self.max_tokens - length)
        steps_to_drain = min(room, (math.log(batch) + _EULER_GAMMA) / hazard) if hazard else room
        step = batch / rate
        waiting_steps = (self.unfinished - batch) / batch * _expected(hazard, self.max_tokens)
        return step * (waiting_steps + _FIXED * steps_to_drain + (1 - _FIXED) * _expected(hazard, room))


def _expected(hazard: float, room: float) -> float:
    """The mean length of a trace that a token ends with probability `hazard`, and that has room for so many."""
    return float(-math.expm1(room * math.log1p(-min(hazard, 0.999)))) / hazard if hazard else room
