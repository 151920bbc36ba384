"""A completion while its tokens come, on every engine: loops, likeliest tokens, how it ends."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

import numpy as np

from ..loop_detection import LoopDetector
from .engine import Completion, FinishReason, Request, Rules

Likeliest = tuple[Sequence[int], Sequence[float]]
"""the K likeliest ids of a step and their log-probabilities, falling, ties by smaller id"""


def ranked(step: Mapping[int, float], k: int) -> Likeliest:
    """The likeliest of a step's log-probabilities by id. Raises ValueError where there are fewer than k."""
    ranks = sorted((-logprob, token) for token, logprob in step.items())[:k]
    if len(ranks) < k:
        raise ValueError(f"{len(ranks)} log-probabilities came for a token, {k} were asked for")
    return [token for _, token in ranks], [-negated for negated, _ in ranks]


class Growing:
    """What has come of one request's completion; `ids` are its tokens."""

    def __init__(self, request: Request, rules: Rules) -> None:
        self.request, self.top = request, rules.top_logprobs
        self.ids: list[int] = []
        self.detector = LoopDetector(rules.loops) if rules.loops else None
        # Arrays, because Python's numbers would take ten times the memory for long traces.
        self._top_ids, self._top_logprobs = array("i"), array("f")

    def take(self, ids: Sequence[int], likeliest: Sequence[Likeliest] = ()) -> bool:
        """Take in the next tokens; True once a loop ends the completion.

        likeliest: of each token's step; unread where K = 0. Raises ValueError where there are not as many as tokens.
        """
        self.ids += ids
        if self.top:
            if len(likeliest) != len(ids):
                raise ValueError(f"log-probabilities of {len(likeliest)} tokens came with {len(ids)} tokens")
            for top_ids, top_logprobs in likeliest:
                self._top_ids.extend(top_ids)
                self._top_logprobs.extend(top_logprobs)
        return self.detector is not None and self.detector.feed(ids) and not self.request.audited

    def completion(self, finish_reason: FinishReason, reason: str = "") -> Completion:
        """What became of it; a loop that ends it has ended it whatever came after."""
        loop_at = self.detector.found_at if self.detector else None
        ids = self.ids
        if loop_at is not None and not self.request.audited:
            ids, finish_reason = ids[:loop_at], "loop"
        if not self.top:
            return Completion(self.request, ids, finish_reason, loop_at, reason=reason)
        shape = (-1, self.top)
        top_ids = np.array(self._top_ids, np.int32).reshape(shape)[: len(ids)]
        top_logprobs = np.array(self._top_logprobs, np.float32).reshape(shape)[: len(ids)]
        return Completion(self.request, ids, finish_reason, loop_at, top_ids, top_logprobs, reason)
