"""The shortest time in which a device can do some work, from two rates measured on it in the same run."""

from __future__ import annotations

from typing import NamedTuple

import torch
from common import DEVICE, ON_GPU, REHEARSAL, interleaved
from torch import Tensor

COPY_BYTES = 2**30 if ON_GPU else 2**20 if REHEARSAL else 2**27  # many times the last cache, but for a rehearsal


class Rates(NamedTuple):
    """The highest rates of the device."""

    bytes_per_second: float  # of a copy, read and written bytes together
    flops: float  # per second, of a bf16 matmul with bf16 results


def measured_rates(hidden_NH: Tensor | None = None, head_VH: Tensor | None = None) -> Rates:
    """The rates of torch's own copy and, if operands are given, of its bf16 product of them."""
    source = torch.ones(COPY_BYTES, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    calls = {"copy": lambda: target.copy_(source)}
    if hidden_NH is not None and head_VH is not None:
        calls["matmul"] = lambda: hidden_NH @ head_VH.T
    seconds = interleaved(calls, 2)
    flops = 0.0
    if hidden_NH is not None and head_VH is not None:
        flops = 2 * hidden_NH.shape[0] * head_VH.numel() / seconds["matmul"]
    return Rates(2 * COPY_BYTES / seconds["copy"], flops)


def floor(rates: Rates, read_bytes: int, flops: float = 0) -> float:
    """The shortest time in seconds. Memory and arithmetic can overlap, so it is that of the slower one."""
    return max(read_bytes / rates.bytes_per_second, flops / rates.flops if flops else 0)
