"""What a sampling engine is given and what it gives back.

An engine knows nothing of files or problems: requests in, completions out, each as soon as it is finished.
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
    """its own: `trace_seed` makes one"""
    max_new_tokens: int
    sample: int = 0
    audited: bool = False
    """a loop is noted, and the trace runs on"""


@dataclass(frozen=True)
class Rules:
    """What holds for all requests of a run."""

    sampling: EngineSamplingParams
    end_ids: frozenset[int]
    """ids that end a text; the one that was drawn is the completion's last"""
    loops: LoopRule | None = None
    top_logprobs: int = 0
    """K: how many of the likeliest tokens to keep at each step"""


@dataclass(frozen=True)
class Completion:
    """What became of a request."""

    request: Request
    ids: list[int]
    """tokens drawn, the end of text included; none where finish_reason is "error" """
    finish_reason: FinishReason
    loop_at: int | None = None
    """tokens up to where a loop was seen, whether it ended the trace or the trace was audited"""
    top_ids: np.ndarray | None = None
    """int32 [len(ids), K], falling log-probability; None where K = 0"""
    top_logprobs: np.ndarray | None = None
    """float32 [len(ids), K], nats: of the model's own distribution, before penalty, temperature and truncation"""
    reason: str = ""
    """error, abort: what went wrong, in one sentence"""


class Engine(Protocol):
    """A model and a way to sample from it. `close` gives back what it holds."""

    name: str
    rules: Rules
    """may be set anew between two calls of `complete`, with the same `top_logprobs`"""

    def complete(
        self, requests: Sequence[Request], drawn: Callable[[int], object]
    ) -> Generator[Completion, None, None]:
        """Each request's completion, in any order, as soon as it is finished; `drawn` is told of tokens as they come.

        A request that fails by itself is an "error"; what stops all of them is a RunError. Closing the generator stops
        the work in flight.
        """
        ...

    def close(self) -> None: ...


def trace_seed(seed: int, problem_id: str, sample: int = 0) -> int:
    """A seed in 0..2^63-1 that depends on the three alone."""
    digest = hashlib.sha256(f"{seed}/{problem_id}#{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
