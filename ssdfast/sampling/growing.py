"""A completion while its tokens come, for the engines that draw elsewhere: loops, likeliest tokens, how it ends."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

import numpy as np

from .engine import Completion, FinishReason, Request, Rules
from .loops import LoopDetector


class Growing:
    """What has come of one request's completion; `ids` are its tokens."""

    def __init__(self, request: Request, rules: Rules) -> None:
        self.request, self.top = request, rules.top_logprobs
        self.ids: list[int] = []
        self.detector = LoopDetector(rules.loops) if rules.loops else None
        # Arrays, because Python's numbers would take ten times the memory for long traces.
        self._top_ids, self._top_logprobs = array("i"), array("f")

    def take(self, ids: Sequence[int], likeliest: Sequence[Mapping[int, float]] = ()) -> bool:
        """Take in the next tokens; True once a loop ends the completion.

        likeliest: for each token, at least the K likeliest ids with their log-probabilities; unread where K = 0.
        Raises ValueError where there are fewer.
        """
        self.ids += ids
        if self.top:
            if len(likeliest) != len(ids):
                raise ValueError(f"log-probabilities of {len(likeliest)} tokens came with {len(ids)} tokens")
            for step in likeliest:
                self._keep(step)
        return self.detector is not None and self.detector.feed(ids) and not self.request.audited

    def _keep(self, step: Mapping[int, float]) -> None:
        ranked = sorted((-logprob, token) for token, logprob in step.items())[: self.top]
        if len(ranked) < self.top:
            raise ValueError(f"{len(ranked)} log-probabilities came for a token, {self.top} were asked for")
        self._top_ids.extend(token for _, token in ranked)
        self._top_logprobs.extend(-negated for negated, _ in ranked)

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
