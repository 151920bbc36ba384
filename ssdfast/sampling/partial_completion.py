"""A completion while it is sampled, the same for every engine: loops, most likely tokens, finish reason."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

import numpy as np

from ..loop_detection import LoopDetector
from .engine import Completion, FinishReason, Request, Rules

TopTokens = tuple[Sequence[int], Sequence[float]]
"""The K most likely ids of a step and their log-probabilities, falling, ties by smaller id."""


def top_tokens(logprobs: Mapping[int, float], k: int) -> TopTokens:
    """The most likely tokens of a step's log-probabilities by id. Raises ValueError where there are fewer than k."""
    ranks = sorted((-logprob, token) for token, logprob in logprobs.items())[:k]
    if len(ranks) < k:
        raise ValueError(f"returns {len(ranks)} log-probabilities for a token, {k} were requested")
    return [token for _, token in ranks], [-negated for negated, _ in ranks]


class PartialCompletion:
    """The tokens of one request so far, in `ids`."""

    def __init__(self, request: Request, rules: Rules) -> None:
        self.request, self.top_logprobs = request, rules.top_logprobs
        self.ids: list[int] = []
        self.detector = LoopDetector(rules.loops) if rules.loops else None
        # Arrays: for long traces, lists of Python numbers would take ten times the memory.
        self._top_ids, self._top_logprobs = array("i"), array("f")

    def add(self, ids: Sequence[int], steps: Sequence[TopTokens] = ()) -> bool:
        """Add the next tokens; True once a loop ends the completion.

        steps: the most likely tokens of each token's step; unused where K = 0. Raises ValueError unless there is one
        step per token.
        """
        self.ids += ids
        if self.top_logprobs:
            if len(steps) != len(ids):
                raise ValueError(f"returns log-probabilities of {len(steps)} tokens with {len(ids)} tokens")
            for top_ids, top_logprobs in steps:
                self._top_ids.extend(top_ids)
                self._top_logprobs.extend(top_logprobs)
        return self.detector is not None and self.detector.feed(ids) and not self.request.audited

    def completion(self, finish_reason: FinishReason, reason: str = "") -> Completion:
        """The completion so far. One that a loop ends is cut at the end of the loop."""
        loop_at = self.detector.loop_at if self.detector else None
        ids = self.ids
        if loop_at is not None and not self.request.audited:
            ids, finish_reason = ids[:loop_at], "loop"
        if not self.top_logprobs:
            return Completion(self.request, ids, finish_reason, loop_at, reason=reason)
        shape = (-1, self.top_logprobs)
        top_ids = np.array(self._top_ids, np.int32).reshape(shape)[: len(ids)]
        top_logprobs = np.array(self._top_logprobs, np.float32).reshape(shape)[: len(ids)]
        return Completion(self.request, ids, finish_reason, loop_at, top_ids, top_logprobs, reason)
