"""Traces as the tensors of a forward pass.

Shape legend: B traces of a batch, L longest input, S completion tokens of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..traces import Trace


@dataclass(frozen=True)
class Batch:
    """Right-padded inputs, and where each completion token is predicted."""

    input_ids_BL: Tensor
    row_S: Tensor  # into the places, flattened to [B * L]
    label_S: Tensor


def collate(traces: list[Trace]) -> Batch:
    """Labels are the completion's own tokens, so an end of text is learnt only where one was sampled.

    Padding stands to the right, where causal attention keeps it from every scored row.
    """
    longest = max(len(trace) for trace in traces) - 1
    input_ids_BL = torch.zeros(len(traces), longest, dtype=torch.int64)
    rows, labels = [], []
    for b, trace in enumerate(traces):
        ids = torch.from_numpy(np.concatenate([trace.prompt_ids, trace.completion_ids]).astype(np.int64))
        input_ids_BL[b, : len(ids) - 1] = ids[:-1]
        rows.append(b * longest + len(trace.prompt_ids) - 1 + torch.arange(len(trace.completion_ids)))
        labels.append(ids[len(trace.prompt_ids) :])
    return Batch(input_ids_BL, torch.cat(rows), torch.cat(labels))
