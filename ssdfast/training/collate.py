"""Traces as the tensors of a micro-batch.

Labels are the completion's own tokens, so the model learns an end of text only where one was sampled. The last token of
a trace is a label but no input.

Shape legend: B rows, L tokens of the longest row, S completion tokens of the micro-batch, K top log-probabilities of
each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..traces import Trace
from .examples import Example
from .packed_attention import packing_inputs


def collate_padded(examples: Sequence[Example]) -> dict[str, Any]:
    """One row per trace.

    input_ids [B, L], padded to the right, so that causal layers keep padding from every scored position; row_S, indices
    into the B x L positions where labels [S] are predicted; if they were stored, top_ids_SK (-1 in empty slots) and
    top_logprobs_SK; traces, their names in order.
    """
    inputs = [_input_ids(example.trace) for example in examples]
    longest = max(map(len, inputs))
    input_ids_BL = torch.zeros(len(inputs), longest, dtype=torch.int64)
    for row_L, ids in zip(input_ids_BL, inputs, strict=True):
        row_L[: len(ids)] = torch.from_numpy(ids)
    return {"input_ids": input_ids_BL, **_labels(examples, [longest * b for b in range(len(inputs))])}


def collate_packed(examples: Sequence[Example]) -> dict[str, Any]:
    """The same with all traces in one row [1, L], and the inputs that keep them apart: position_ids [1, L] and
    trace_lengths."""
    inputs = [_input_ids(example.trace) for example in examples]
    lengths = list(map(len, inputs))
    return {
        "input_ids": torch.from_numpy(np.concatenate(inputs))[None],
        **packing_inputs(lengths),
        **_labels(examples, np.cumsum([0, *lengths[:-1]]).tolist()),
    }


def _input_ids(trace: Trace) -> np.ndarray:
    return np.concatenate([trace.prompt_ids, trace.completion_ids[:-1]]).astype(np.int64)


def _labels(examples: Sequence[Example], starts: Sequence[int]) -> dict[str, Any]:
    """The keys that depend on the layout only by the index at which each trace starts."""
    traces = [example.trace for example in examples]
    rows = [
        start + len(trace.prompt_ids) - 1 + np.arange(len(trace.completion_ids))
        for trace, start in zip(traces, starts, strict=True)
    ]
    labels: dict[str, Any] = {
        "row_S": torch.from_numpy(np.concatenate(rows)),
        "labels": torch.from_numpy(np.concatenate([trace.completion_ids for trace in traces]).astype(np.int64)),
        "traces": [str(trace) for trace in traces],
    }
    if all(example.top_ids_LK is not None for example in examples):
        labels["top_ids_SK"] = _concat_padded([example.top_ids_LK for example in examples], -1)
        labels["top_logprobs_SK"] = _concat_padded([example.top_logprobs_LK for example in examples], -torch.inf)
    return labels


def _concat_padded(arrays: Sequence[Any], fill: float) -> Tensor:
    """[S, K]: the arrays one after the other, each padded to the largest K."""
    k = max(array.shape[1] for array in arrays)
    return torch.cat(
        [
            torch.nn.functional.pad(torch.from_numpy(array_LK), (0, k - array_LK.shape[1]), value=fill)
            for array_LK in arrays
        ]
    )
