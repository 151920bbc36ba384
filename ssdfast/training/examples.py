"""Training examples: traces as token ids, with the sampling model's top log-probabilities where they were stored.

Shape legend: L completion tokens, K top log-probabilities of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import trace_checks, traces
from ..config import EngineSamplingParams
from ..traces import Trace

_OPTIONAL = ("finish_reason", "difficulty", "top_ids", "top_logprobs", *EngineSamplingParams.model_fields)


@dataclass(frozen=True, eq=False)
class Example:
    """One trace. Its completion tokens are the labels."""

    trace: Trace
    sampling: EngineSamplingParams | None
    """how it was sampled, None where the table has no such columns"""
    top_ids_LK: np.ndarray | None
    """int32, for each completion token; None where they were not stored"""
    top_logprobs_LK: np.ndarray | None
    """float32"""
    finish_reason: str | None = None
    difficulty: str | None = None
    """of the problem"""

    def __len__(self) -> int:
        return len(self.trace)


def read_examples(path: Path, vocabulary: int, tokenizer: Any = None) -> Iterator[Example]:
    """The finished traces of a run, a directory or a file that have completion tokens, in order.

    tokenizer: that of the model, which the traces must be of; None checks the range of the ids alone.
    Raises ValueError that names file and trace, for ids outside the vocabulary, for traces of a different tokenizer,
    and for lists of top log-probabilities that do not match the completion.
    """
    source = traces.traces_path(path)
    rows = (
        trace_checks.rows_for_model(source, _OPTIONAL, vocabulary, tokenizer)
        if tokenizer
        else traces.rows(source, _OPTIONAL)
    )
    for trace, columns in rows:
        if not len(trace.completion_ids):
            continue
        if not tokenizer:
            trace_checks.check_ids(trace, vocabulary)
        optional = {name: columns[name].as_py() for name in ("finish_reason", "difficulty") if name in columns}
        yield Example(trace, _sampling(columns), *_top_logprobs(trace, columns, vocabulary), **optional)


def _sampling(columns: dict) -> EngineSamplingParams | None:
    params = {name: columns[name].as_py() for name in EngineSamplingParams.model_fields if name in columns}
    if params.get("temperature") is None:
        return None
    return EngineSamplingParams(**{name: value for name, value in params.items() if value is not None})


def _top_logprobs(trace: Trace, columns: dict, vocabulary: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    if "top_ids" not in columns or not columns["top_ids"].is_valid:
        return None, None
    arrays = []
    for name, dtype in (("top_ids", np.int32), ("top_logprobs", np.float32)):
        steps = columns[name].values
        flat = steps.flatten().to_numpy(zero_copy_only=False).astype(dtype)
        if len(steps) != len(trace.completion_ids) or len(flat) % len(steps):
            raise ValueError(
                f"{trace}: {name} has {len(steps)} lists for {len(trace.completion_ids)} completion tokens, or lists of"
                " unequal length: sample again"
            )
        arrays.append(flat.reshape(len(steps), -1))
    if outside := [i for i in (arrays[0].max(initial=0), arrays[0].min(initial=0)) if not -1 <= i < vocabulary]:
        raise ValueError(
            f"{trace}: top_ids holds token id {outside[0]}, outside the model's vocabulary of {vocabulary}: use traces"
            " made with the model's tokenizer"
        )
    return arrays[0], arrays[1]
