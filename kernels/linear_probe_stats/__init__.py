"""The statistics of ``probe_stats`` from hidden states and heads: the logits of all positions never exist at once.

    from ssdfast.kernels import LmHead, ProbeSpec, linear_probe_stats
    stats = linear_probe_stats(hidden_base, head_base, hidden_trained, head_trained, tokens, ProbeSpec())

Backends: ``reference`` (plain torch, anywhere, float64), ``cpu`` (C++), ``triton`` (GPU).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import fastest, implementation, with_backends
from ..probe_stats.checks import check_token_class, check_token_ids
from ..probe_stats.schema import ProbeSpec, ProbeStats, from_numbers, new_packed, to_numbers, unpack
from .checks import check_models
from .head import LmHead
from .logits import lm_head_logits
from .shards import sharded_linear_probe_stats

__all__ = ["LmHead", "linear_probe_stats", "lm_head_logits", "sharded_linear_probe_stats"]


@with_backends
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

    hidden_base_NH, hidden_trained_NH: [N, H], bf16, fp16 or fp32 (fp64 with the reference); each model has its own H.
    lm_head_base_VH, lm_head_trained_VH: the weight [V, H] in the dtype of its hidden states, or an ``LmHead`` with
        bias, scale and soft-cap. One tensor may serve both models.
    The arguments of the trained model may both be None.
    token_N: integer [N], the trace's token, 0 <= token < V.
    spec: which statistics; ``ProbeSpec()`` if None.
    backend: a name from ``backends()``, or None for the fastest on the tensors' device.
    Memory on a GPU: blocks of logits up to 1 GiB, or SSDFAST_GPU_WORKSPACE_MB, whatever N is.
    Returns ``ProbeStats`` of float32 logits: products of bf16 or fp16 are exact, their sums are float32, and nothing is
    rounded to 16 bits in between. A position whose hidden state or logits hold NaN gives NaN and -1 in its own columns.
    Raises ValueError for shapes, dtypes or devices that do not match, an id out of range or an unknown backend, and
    RuntimeError for a backend that cannot run here.
    """
    spec = spec or ProbeSpec()
    head_base = LmHead.from_weight(lm_head_base_VH)
    head_trained = None if lm_head_trained_VH is None else LmHead.from_weight(lm_head_trained_VH)
    check_models(hidden_base_NH, head_base, hidden_trained_NH, head_trained, token_N)
    check_token_class(spec, head_base.weight_VH.shape[0])
    floats, ints = _packed(
        hidden_base_NH, head_base.weight_VH, head_base.bias_V, _numbers(head_base),
        hidden_trained_NH, head_trained and head_trained.weight_VH, head_trained and head_trained.bias_V,
        _numbers(head_trained),
        token_N.to(torch.int64), *to_numbers(spec, hidden_base_NH.device), backend or "",
    )  # fmt: skip
    return unpack(floats, ints, hidden_base_NH.shape[0], spec, hidden_trained_NH is not None)


@torch.library.custom_op("ssdfast::linear_probe_stats", mutates_args=())
def _packed(
    hidden_base: Tensor, weight_base: Tensor, bias_base: Tensor | None, scale_and_softcap_base: list[float],
    hidden_trained: Tensor | None, weight_trained: Tensor | None, bias_trained: Tensor | None,
    scale_and_softcap_trained: list[float], token: Tensor, token_class: Tensor | None, n_classes: int,
    top_logprobs: int, sweeps: int, temperature_and_p: list[float], top_k: list[int], lse_temperatures: list[float],
    backend: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The operator behind ``linear_probe_stats``: tensors and plain numbers in, packed columns out."""
    check_token_ids(token, weight_base.shape[0])
    spec = from_numbers(token_class, n_classes, top_logprobs, sweeps, temperature_and_p, top_k, lse_temperatures)
    module = implementation("linear_probe_stats", backend or fastest(hidden_base), hidden_base.dtype)
    if token.shape[0] == 0:
        return new_packed(hidden_base, 0, spec, hidden_trained is not None)
    head_base = _head(weight_base, bias_base, scale_and_softcap_base)
    head_trained = None if weight_trained is None else _head(weight_trained, bias_trained, scale_and_softcap_trained)
    return module.linear_probe_stats_packed(hidden_base, head_base, hidden_trained, head_trained, token, spec)


@_packed.register_fake
def _(
    hidden_base: Tensor, weight_base: Tensor, bias_base: Tensor | None, scale_and_softcap_base: list[float],
    hidden_trained: Tensor | None, weight_trained: Tensor | None, bias_trained: Tensor | None,
    scale_and_softcap_trained: list[float], token: Tensor, token_class: Tensor | None, n_classes: int,
    top_logprobs: int, sweeps: int, temperature_and_p: list[float], top_k: list[int], lse_temperatures: list[float],
    backend: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    spec = from_numbers(
        token_class, n_classes, top_logprobs, sweeps, temperature_and_p, top_k, lse_temperatures, has_values=False
    )
    return new_packed(hidden_base, hidden_base.shape[0], spec, hidden_trained is not None)


def _numbers(head: LmHead | None) -> list[float]:
    return [] if head is None else [head.scale, head.softcap or 0.0]


def _head(weight_VH: Tensor, bias_V: Tensor | None, scale_and_softcap: list[float]) -> LmHead:
    scale, softcap = scale_and_softcap
    return LmHead(weight_VH, bias_V, scale, softcap or None)
