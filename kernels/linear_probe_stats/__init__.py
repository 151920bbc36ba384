"""The statistics of ``probe_stats`` from hidden states and heads: the logits of all positions never exist at once.

    from ssdfast.kernels import LmHead, ProbeSpec, linear_probe_stats
    stats = linear_probe_stats(hidden_a, head_a, hidden_b, head_b, tokens, ProbeSpec())

Backends: ``reference`` (plain torch, anywhere, float64), ``cpu`` (C++), ``triton`` (GPU).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import backends, fastest, implementation
from ..probe_stats.checks import check_token_class, check_token_ids
from ..probe_stats.schema import ProbeSpec, ProbeStats, from_numbers, new_packed, to_numbers, unpack
from .checks import check_models
from .head import LmHead
from .logits import lm_head_logits
from .shards import sharded_linear_probe_stats

__all__ = ["LmHead", "linear_probe_stats", "lm_head_logits", "sharded_linear_probe_stats"]


def linear_probe_stats(
    hidden_base_NH: Tensor,
    lm_head_base_VH: Tensor | LmHead,
    hidden_trained_NH: Tensor | None,
    lm_head_trained_VH: Tensor | LmHead | None,
    token_N: Tensor,
    spec: ProbeSpec | None = None,
    backend: str | None = None,
) -> ProbeStats:
    """Statistics of N positions under a baseline and, optionally, a trained model, from their last hidden states.

    hidden_base_NH, hidden_trained_NH: [N, H], bf16, fp16 or fp32 (fp64 with the reference); the two models may differ
    in H.
    lm_head_base_VH, lm_head_trained_VH: the weight [V, H] in the dtype of its hidden states, or an ``LmHead`` with
        bias, scale and soft-cap. One tensor may serve both models. Model b may be absent: both of its arguments None.
    token_N: integer [N], the token that stands in the trace, 0 <= token < V.
    spec: which statistics; ``ProbeSpec()`` if None.
    backend: a name from ``backends()``, or None for the fastest on the tensors' device.
    Returns ``ProbeStats``, of float32 logits: products of bf16 or fp16 are exact, their sums float32, and nothing is
    rounded to 16 bits on the way. A position whose hidden state or logits hold NaN gives NaN and -1 in its own columns.
    Raises ValueError for mismatched shapes, dtypes or devices, an id out of range, an unknown backend;
    RuntimeError for a backend that cannot run here.
    """
    spec = spec or ProbeSpec()
    head_a, head_b = LmHead.of(lm_head_base_VH), None if lm_head_trained_VH is None else LmHead.of(lm_head_trained_VH)
    check_models(hidden_base_NH, head_a, hidden_trained_NH, head_b, token_N)
    check_token_class(spec, head_a.weight_VH.shape[0])
    floats, ints = _packed(
        hidden_base_NH, head_a.weight_VH, head_a.bias_V, _numbers(head_a),
        hidden_trained_NH, head_b and head_b.weight_VH, head_b and head_b.bias_V, _numbers(head_b),
        token_N.to(torch.int64), *to_numbers(spec, hidden_base_NH.device), backend or "",
    )  # fmt: skip
    return unpack(floats, ints, hidden_base_NH.shape[0], spec, hidden_trained_NH is not None)


linear_probe_stats.backends = backends  # type: ignore[attr-defined]  # part of the public contract


@torch.library.custom_op("ssdfast::linear_probe_stats", mutates_args=())
def _packed(
    hidden_a: Tensor, weight_a: Tensor, bias_a: Tensor | None, scale_and_softcap_a: list[float],
    hidden_b: Tensor | None, weight_b: Tensor | None, bias_b: Tensor | None, scale_and_softcap_b: list[float],
    token: Tensor, token_class: Tensor | None, n_classes: int, top: int, sweeps: int, temperature_and_p: list[float],
    top_k: list[int], temperatures: list[float], backend: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The operator behind ``linear_probe_stats``: heads and specification as plain numbers, the columns packed."""
    check_token_ids(token, weight_a.shape[0])
    spec = from_numbers(token_class, n_classes, top, sweeps, temperature_and_p, top_k, temperatures)
    module = implementation("linear_probe_stats", backend or fastest(hidden_a), hidden_a.dtype)
    if token.shape[0] == 0:
        return new_packed(hidden_a, 0, spec, hidden_b is not None)
    head_a = _head_of(weight_a, bias_a, scale_and_softcap_a)
    head_b = None if weight_b is None else _head_of(weight_b, bias_b, scale_and_softcap_b)
    return module.linear_probe_stats_packed(hidden_a, head_a, hidden_b, head_b, token, spec)


@_packed.register_fake
def _(
    hidden_a, weight_a, bias_a, scale_and_softcap_a, hidden_b, weight_b, bias_b, scale_and_softcap_b, token,
    token_class, n_classes, top, sweeps, temperature_and_p, top_k, temperatures, backend,
):  # fmt: skip
    spec = from_numbers(token_class, n_classes, top, sweeps, temperature_and_p, top_k, temperatures, has_values=False)
    return new_packed(hidden_a, hidden_a.shape[0], spec, hidden_b is not None)


def _numbers(head: LmHead | None) -> list[float]:
    return [] if head is None else [head.scale, head.softcap or 0.0]


def _head_of(weight_VH: Tensor, bias_V: Tensor | None, scale_and_softcap: list[float]) -> LmHead:
    scale, softcap = scale_and_softcap
    return LmHead(weight_VH, bias_V, scale, softcap or None)
