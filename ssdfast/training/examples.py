"""Training examples: traces as token ids, with the sampling model's top log-probabilities where they were stored.

Shape legend: L completion tokens, K top log-probabilities of each.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from .. import trace_checks, traces
from ..config import EngineSamplingParams
from ..traces import Trace

_OPTIONAL = ("finish_reason", "difficulty", *EngineSamplingParams.model_fields)
_TOP = ("top_ids", "top_logprobs")


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


def read_examples(path: Path, vocabulary: int, tokenizer: Any = None, with_top: bool = True) -> Iterator[Example]:
    """The finished traces of a run, a directory or a file that have completion tokens, in order.

    tokenizer: that of the model, which the traces must be of; None checks the range of the ids alone.
    with_top: read the top log-probabilities too, where they were stored.
    Raises ValueError that names file and trace, for ids outside the vocabulary, for traces of a different tokenizer,
    and for lists of top log-probabilities that do not match the completion.
    """
    source, columns = traces.traces_path(path), (*_OPTIONAL, *(_TOP if with_top else ()))
    rows = (
        trace_checks.rows_for_model(source, columns, vocabulary, tokenizer)
        if tokenizer
        else traces.rows(source, columns)
    )
    for trace, row in rows:
        if not len(trace.completion_ids):
            continue
        if not tokenizer:
            trace_checks.check_ids(trace, vocabulary)
        optional = {name: row[name].as_py() for name in ("finish_reason", "difficulty") if name in row}
        yield Example(trace, _sampling(row), *_top_logprobs(trace, row, vocabulary), **optional)


def _sampling(columns: dict) -> EngineSamplingParams | None:
    params = {name: columns[name].as_py() for name in EngineSamplingParams.model_fields if name in columns}
    if params.get("temperature") is None:
        return None
    return EngineSamplingParams(**{name: value for name, value in params.items() if value is not None})


def _top_logprobs(trace: Trace, columns: dict, vocabulary: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    if "top_ids" not in columns or not columns["top_ids"].is_valid:
        return None, None
    arrays = []
    for name, dtype in zip(_TOP, (np.int32, np.float32), strict=True):
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


def map_top_logprobs(examples: Iterable[Example]) -> list[Example]:
    """The examples, with their top log-probabilities in a mapped file in the place of memory: 20 of them take 160 bytes
    a token, 40 times the token itself.

    The file is in the system's directory for temporary files (TMPDIR) and has no name, so that nothing is left of it
    however the process ends.
    """
    with tempfile.TemporaryFile(prefix="ssdfast-top-") as file:
        placed = [
            (dataclasses.replace(example, top_ids_LK=None, top_logprobs_LK=None), *_append(file, example))
            for example in examples
        ]
        file.flush()
        if not file.tell():
            return [example for example, _, _ in placed]
        content = np.asarray(np.memmap(file, np.uint8, "c"))  # copied when written to, as torch wants its arrays to be
    return [_with_top(content[start:], example, shape) if shape else example for example, start, shape in placed]


def _append(file: IO[bytes], example: Example) -> tuple[int, tuple[int, ...]]:
    """Where the lists begin, and their shape; () for an example without any."""
    start = file.tell()
    if example.top_ids_LK is None or example.top_logprobs_LK is None:
        return start, ()
    file.write(example.top_ids_LK.tobytes())
    file.write(example.top_logprobs_LK.tobytes())
    return start, example.top_ids_LK.shape


def _with_top(content: np.ndarray, example: Example, shape: tuple[int, ...]) -> Example:
    ids, logprobs = np.split(content[: 8 * math.prod(shape)], 2)
    return dataclasses.replace(
        example,
        top_ids_LK=ids.view(np.int32).reshape(shape),
        top_logprobs_LK=logprobs.view(np.float32).reshape(shape),
    )
