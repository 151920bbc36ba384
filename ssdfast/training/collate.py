"""Traces as the tensors of a forward pass.

Labels are the completion's own tokens, so an end of text is learnt only where one was sampled. The last token of a
trace predicts nothing of it, and is no input.

Shape legend: B rows, L tokens of the longest, S completion tokens of the pass, K likeliest tokens of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..traces import Trace
from .examples import Example
from .packed_attention import placed


def padded(examples: Sequence[Example]) -> dict[str, Any]:
    """A row a trace: input_ids [B, L] padded to the right, where causal layers keep it from every scored place; row_S
    into the B x L places where labels [S] are predicted; and where they were kept the likeliest tokens top_ids_SK (-1
    in empty slots) and top_logprobs_SK. traces: their names, as they follow one another."""
    inputs = [_inputs(example.trace) for example in examples]
    longest = max(map(len, inputs))
    input_ids_BL = torch.zeros(len(inputs), longest, dtype=torch.int64)
    for row_L, ids in zip(input_ids_BL, inputs, strict=True):
        row_L[: len(ids)] = torch.from_numpy(ids)
    return {"input_ids": input_ids_BL, **_scored(examples, [longest * b for b in range(len(inputs))])}


def packed(examples: Sequence[Example]) -> dict[str, Any]:
    """The same in one row [1, L], a trace after the other, with what keeps them apart: position_ids [1, L] and
    trace_lengths."""
    inputs = [_inputs(example.trace) for example in examples]
    lengths = list(map(len, inputs))
    return {
        "input_ids": torch.from_numpy(np.concatenate(inputs))[None],
        **placed(lengths),
        **_scored(examples, np.cumsum([0, *lengths[:-1]]).tolist()),
    }


def _inputs(trace: Trace) -> np.ndarray:
    return np.concatenate([trace.prompt_ids, trace.completion_ids[:-1]]).astype(np.int64)


def _scored(examples: Sequence[Example], starts: Sequence[int]) -> dict[str, Any]:
    """What does not depend on how traces are laid out but for where each starts."""
    traces = [example.trace for example in examples]
    rows = [
        start + len(trace.prompt_ids) - 1 + np.arange(len(trace.completion_ids))
        for trace, start in zip(traces, starts, strict=True)
    ]
    found: dict[str, Any] = {
        "row_S": torch.from_numpy(np.concatenate(rows)),
        "labels": torch.from_numpy(np.concatenate([trace.completion_ids for trace in traces]).astype(np.int64)),
        "traces": [str(trace) for trace in traces],
    }
    if all(example.top_ids_LK is not None for example in examples):
        found["top_ids_SK"] = _joined([example.top_ids_LK for example in examples], -1)
        found["top_logprobs_SK"] = _joined([example.top_logprobs_LK for example in examples], -torch.inf)
    return found


def _joined(lists: Sequence[Any], empty: float) -> Tensor:
    """All traces' lists one after the other, as long as the longest."""
    widest = max(one.shape[1] for one in lists)
    return torch.cat(
        [torch.nn.functional.pad(torch.from_numpy(one), (0, widest - one.shape[1]), value=empty) for one in lists]
    )
