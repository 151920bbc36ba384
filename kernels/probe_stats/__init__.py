"""Statistics of each position from one or two models' logits, in one pass over the rows.

    from ssdfast.kernels import ProbeSpec, probe_stats
    stats = probe_stats(logits_base, logits_trained, tokens, ProbeSpec())
    stats.base.entropy, stats.pair.kl_base_trained

Backends: ``reference`` (plain torch, anywhere, float64), ``cpu`` (C++), ``triton`` (GPU).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import fastest, implementation, with_backends
from .checks import check_logits, check_token, check_token_class, check_token_ids
from .schema import (
    ModelStats,
    PairStats,
    ProbeSpec,
    ProbeStats,
    SamplingParams,
    from_numbers,
    new_packed,
    to_numbers,
    unpack,
)
from .shards import sharded_probe_stats
from .state import merge_states

__all__ = [
    "ModelStats",
    "PairStats",
    "ProbeSpec",
    "ProbeStats",
    "SamplingParams",
    "merge_states",
    "probe_stats",
    "sharded_probe_stats",
]


@with_backends
def probe_stats(
    logits_base_NV: Tensor,
    logits_trained_NV: Tensor | None,
    token_N: Tensor,
    spec: ProbeSpec | None = None,
    backend: str | None = None,
) -> ProbeStats:
    """Statistics of N positions under a baseline and, optionally, a trained model.

    logits_base_NV, logits_trained_NV: [N, V], bf16, fp16 or fp32 (fp64 with the reference), any row stride, unit stride
        along V. ``-inf`` marks a token that cannot occur (mask with -inf, not with a large number: differences saturate
        at 1e18). ``logits_trained_NV`` may be None.
    token_N: integer [N], the trace's token, 0 <= token < V.
    spec: which statistics; ``ProbeSpec()`` if None.
    backend: a name from ``backends()``, or None for the fastest on the tensors' device.
    Returns ``ProbeStats``. A row that holds NaN or +inf, or is all -inf, gives NaN and -1 in its own columns.
    Raises ValueError for shapes, dtypes or devices that do not match, an id out of range or an unknown backend, and
    RuntimeError for a backend that cannot run here.
    """
    spec = spec or ProbeSpec()
    _check(logits_base_NV, logits_trained_NV, token_N, spec)
    floats, ints = _packed(
        logits_base_NV, logits_trained_NV, token_N.to(torch.int64), *to_numbers(spec, logits_base_NV.device),
        backend or "",
    )  # fmt: skip
    return unpack(floats, ints, logits_base_NV.shape[0], spec, logits_trained_NV is not None)


@torch.library.custom_op("ssdfast::probe_stats", mutates_args=())
def _packed(
    a: Tensor, b: Tensor | None, token: Tensor, token_class: Tensor | None, n_classes: int, top_logprobs: int,
    sweeps: int, temperature_and_p: list[float], top_k: list[int], lse_temperatures: list[float], backend: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The operator behind ``probe_stats``: plain numbers in, packed columns out. Backend "" is the fastest."""
    check_token_ids(token, a.shape[1])
    spec = from_numbers(token_class, n_classes, top_logprobs, sweeps, temperature_and_p, top_k, lse_temperatures)
    module = implementation("probe_stats", backend or fastest(a), a.dtype)
    if a.shape[0] == 0:
        return new_packed(a, 0, spec, b is not None)
    return module.probe_stats_packed(a, b, token, spec)


@_packed.register_fake
def _(
    a: Tensor, b: Tensor | None, token: Tensor, token_class: Tensor | None, n_classes: int, top_logprobs: int,
    sweeps: int, temperature_and_p: list[float], top_k: list[int], lse_temperatures: list[float], backend: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    spec = from_numbers(
        token_class, n_classes, top_logprobs, sweeps, temperature_and_p, top_k, lse_temperatures, has_values=False
    )
    return new_packed(a, a.shape[0], spec, b is not None)


def _check(a: Tensor, b: Tensor | None, token: Tensor, spec: ProbeSpec) -> None:
    check_logits(a, b)
    if a.shape[1] == 0:
        raise ValueError("logits_base_NV has an empty vocabulary")
    check_token(token, a)
    check_token_class(spec, a.shape[1])
