"""What a run is trained on: traces as token ids, with the sampling model's likeliest tokens where those were kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import traces
from ..config import EngineSamplingParams
from ..traces import Trace

_OPTIONAL = ("finish_reason", "difficulty", "top_ids", "top_logprobs", *EngineSamplingParams.model_fields)


@dataclass(frozen=True, eq=False)
class Example:
    """One trace; its completion tokens are what is learnt."""

    trace: Trace
    decoding: EngineSamplingParams | None
    """how it was sampled, None where the table does not say"""
    top_ids_LK: np.ndarray | None
    """int32, at each completion token; None where they were not kept"""
    top_logprobs_LK: np.ndarray | None
    """float32"""
    finish_reason: str | None = None
    difficulty: str | None = None
    """of the problem"""

    def __len__(self) -> int:
        return len(self.trace)


def read_examples(path: Path, vocabulary: int) -> Iterator[Example]:
    """The finished traces of a run, a directory or a file that have completion tokens, in order.

    Raises ValueError that names file and trace, for ids outside the vocabulary, and lists of likeliest tokens that are
    not those of the completion.
    """
    for trace, rest in traces.rows(traces.within(path), _OPTIONAL):
        if not len(trace.completion_ids):
            continue
        traces.check_ids(trace, vocabulary)
        said = {name: rest[name].as_py() for name in ("finish_reason", "difficulty") if name in rest}
        yield Example(trace, _decoding(rest), *_top(trace, rest), **said)


def _decoding(rest: dict) -> EngineSamplingParams | None:
    said = {name: rest[name].as_py() for name in EngineSamplingParams.model_fields if name in rest}
    if said.get("temperature") is None:
        return None
    return EngineSamplingParams(**{name: value for name, value in said.items() if value is not None})


def _top(trace: Trace, rest: dict) -> tuple[np.ndarray | None, np.ndarray | None]:
    if "top_ids" not in rest or not rest["top_ids"].is_valid:
        return None, None
    found = []
    for name, kind in (("top_ids", np.int32), ("top_logprobs", np.float32)):
        steps = rest[name].values
        flat = steps.flatten().to_numpy(zero_copy_only=False).astype(kind)
        if len(steps) != len(trace.completion_ids) or len(flat) % len(steps):
            raise ValueError(
                f"{trace}: {name} has {len(steps)} lists for {len(trace.completion_ids)} completion tokens, or lists of"
                " unequal length: sample again"
            )
        found.append(flat.reshape(len(steps), -1))
    return found[0], found[1]
