"""The interface of a sampling engine.

An engine knows nothing of files or problems. It takes requests and yields each completion as soon as it is finished.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from ..config import EngineSamplingParams
from ..loop_detection import LoopRule

FinishReason = Literal["stop", "length", "loop", "abort", "error"]


@dataclass(frozen=True)
class Request:
    """One trace to sample."""

    problem_id: str
    prompt_ids: list[int]
    seed: int
    """The trace's own seed, from `trace_seed`."""
    max_new_tokens: int
    sample: int = 0
    audited: bool = False
    """A loop is recorded, and the trace continues."""


@dataclass(frozen=True)
class Rules:
    """What holds for all requests of a run."""

    sampling: EngineSamplingParams
    end_ids: frozenset[int]
    """The ids that end a text; the one that was sampled is the last id of the completion."""
    loops: LoopRule | None = None
    top_logprobs: int = 0
    """K, the number of most likely tokens that are stored at each step."""


@dataclass(frozen=True)
class Completion:
    """The result of a request."""

    request: Request
    ids: list[int]
    """The sampled tokens with the end of text; empty where finish_reason is "error"."""
    finish_reason: FinishReason
    loop_at: int | None = None
    """The number of tokens up to the end of a detected loop, whether the trace was stopped there or audited."""
    top_ids: np.ndarray | None = None
    """int32 [len(ids), K], falling log-probability; None where K = 0"""
    top_logprobs: np.ndarray | None = None
    """float32 [len(ids), K], nats: of the model's own distribution, before penalty, temperature and truncation"""
    reason: str = ""
    """What failed, in one sentence, where finish_reason is "error" or "abort"."""


class Engine(Protocol):
    """A model and a way to sample from it. `close` releases its resources."""

    name: str
    capacity: int
    """The number of traces that are sampled at the same time."""
    rules: Rules
    """These can be replaced between two calls of `complete`, with the same `top_logprobs`."""

    def complete(
        self, requests: Sequence[Request], on_tokens: Callable[[int], object]
    ) -> Generator[Completion, None, None]:
        """Yield each request's completion, in any order, as soon as it is finished.

        on_tokens: called with the number of new tokens as they are sampled.
        A request that fails alone yields an "error". A failure of the engine as a whole raises RunError. Closing the
        generator cancels the requests in flight.
        """
        ...

    def close(self) -> None: ...


def trace_seed(seed: int, problem_id: str, sample: int = 0) -> int:
    """A seed in 0..2^63-1 that depends on the three arguments only."""
    digest = hashlib.sha256(f"{seed}/{problem_id}#{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
