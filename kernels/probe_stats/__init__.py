"""Per-position statistics of one or two models' logits, in one pass over the rows.

    from ssdfast.kernels import ProbeSpec, probe_stats
    stats = probe_stats(logits_a, logits_b, tokens, ProbeSpec())
    stats.a.entropy, stats.pair.kl_ab

Backends: ``reference`` (plain torch, anywhere, float64), ``cpu`` (C++), ``triton`` (GPU).
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from . import reference
from .schema import Decoding, ModelStats, PairStats, ProbeSpec, ProbeStats, packed_sizes, unpack

__all__ = ["Decoding", "ModelStats", "PairStats", "ProbeSpec", "ProbeStats", "backends", "probe_stats"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def probe_stats(
    logits_a_NV: Tensor,
    logits_b_NV: Tensor | None,
    token_N: Tensor,
    spec: ProbeSpec | None = None,
    backend: str | None = None,
) -> ProbeStats:
    """Statistics of N positions under a baseline and, optionally, a trained model.

    logits_a_NV, logits_b_NV: [N, V], bf16, fp16 or fp32 (fp64 with the reference); any row stride, unit stride along V.
        ``-inf`` marks a token that cannot occur (mask with -inf, not with a large number: differences saturate at
        1e18). ``logits_b_NV`` may be None.
    token_N: integer [N], the token that stands in the trace, 0 <= token < V.
    spec: which statistics; ``ProbeSpec()`` if None.
    backend: a name from ``backends()``, or None for the fastest on the tensors' device.
    Returns ``ProbeStats``. A row that holds NaN or +inf, or is all -inf, gives NaN and -1 in its own columns.
    Raises ValueError for mismatched shapes, dtypes or devices, an id out of range, an unknown backend;
    RuntimeError for a backend that cannot run here.
    """
    spec = spec or ProbeSpec()
    _check(logits_a_NV, logits_b_NV, token_N, spec)
    if backend is None:
        backend = _fastest(logits_a_NV)
    token_class = None if spec.token_class is None else spec.token_class.to(logits_a_NV.device)
    floats, ints = _packed(
        logits_a_NV, logits_b_NV, token_N.to(torch.int64), token_class, spec.n_classes, spec.top, spec.sweeps,
        [spec.decoding.temperature, spec.decoding.top_p, spec.train.temperature, spec.train.top_p],
        [spec.decoding.top_k, spec.train.top_k], list(spec.temperatures), backend,
    )  # fmt: skip
    return unpack(floats, ints, logits_a_NV.shape[0], spec, logits_b_NV is not None)


def backends() -> tuple[str, ...]:
    """The backends that can run on this machine."""
    return ("reference", *(["cpu"] if _why_no_cpu() is None else []), *(["triton"] if _why_no_triton() is None else []))


probe_stats.backends = backends  # type: ignore[attr-defined]  # part of the public contract


@torch.library.custom_op("ssdfast::probe_stats", mutates_args=())
def _packed(
    a: Tensor, b: Tensor | None, token: Tensor, token_class: Tensor | None, n_classes: int, top: int, sweeps: int,
    temperature_and_p: list[float], top_k: list[int], temperatures: list[float], backend: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The operator behind ``probe_stats``: the specification as plain numbers, the columns packed."""
    _check_tokens(token, a.shape[1])
    t, p, t_train, p_train = temperature_and_p
    spec = ProbeSpec(
        top, Decoding(t, top_k[0], p), Decoding(t_train, top_k[1], p_train), tuple(temperatures),
        token_class, sweeps, n_classes,
    )  # fmt: skip
    if backend not in ("reference", "cpu", "triton"):
        raise ValueError(f"backend must be one of {', '.join(backends())}, got {backend!r}")
    if backend != "reference" and a.dtype not in _DTYPES:
        raise ValueError(f"backend {backend!r} takes bf16, fp16 or fp32 logits, got {a.dtype}: use backend='reference'")
    if a.shape[0] == 0:
        return _empty(a, b, spec)
    if backend == "reference":
        return reference.probe_stats_packed(a, b, token, spec)
    if backend == "cpu":
        if reason := _why_no_cpu():
            raise RuntimeError(reason)
        from . import cpu

        return cpu.probe_stats_packed(a, b, token, spec)
    if reason := _why_no_triton():
        raise RuntimeError(reason)
    from . import triton

    return triton.probe_stats_packed(a, b, token, spec)


@_packed.register_fake
def _(a, b, token, token_class, n_classes, top, sweeps, temperature_and_p, top_k, temperatures, backend):
    spec = ProbeSpec(top, temperatures=tuple(temperatures), sweeps=2,
                     decoding=Decoding(), train=Decoding())  # fmt: skip
    object.__setattr__(spec, "n_classes", n_classes)
    return _empty(a, b, spec)


def _empty(a: Tensor, b: Tensor | None, spec: ProbeSpec) -> tuple[Tensor, Tensor]:
    floats, ints = packed_sizes(spec, b is not None)
    dtype = torch.float64 if a.dtype == torch.float64 else torch.float32
    return a.new_empty(a.shape[0] * floats, dtype=dtype), a.new_empty(a.shape[0] * ints, dtype=torch.int64)


def _fastest(logits: Tensor) -> str:
    if logits.dtype in _DTYPES:
        if logits.is_cuda and _why_no_triton() is None:
            return "triton"
        if logits.device.type == "cpu" and _why_no_cpu() is None:
            return "cpu"
    return "reference"


@functools.cache
def _why_no_cpu() -> str | None:
    try:
        from . import cpu  # noqa: F401
    except (ImportError, OSError) as error:
        return f"the C++ extension is not built ({error}): install ssdfast with a C++17 compiler at hand"
    return None


@functools.cache
def _why_no_triton() -> str | None:
    try:
        from . import triton
    except ImportError as error:
        return f"triton is not installed ({error}): pip install triton"
    return triton.why_not()


def _check(a: Tensor, b: Tensor | None, token: Tensor, spec: ProbeSpec) -> None:
    for name, logits in (("logits_a_NV", a), ("logits_b_NV", b)):
        if logits is None:
            continue
        if logits.dim() != 2:
            raise ValueError(f"{name} must have shape [N, V], got {list(logits.shape)}")
        if logits.dtype not in (*_DTYPES, torch.float64):
            raise ValueError(f"{name} must be bf16, fp16, fp32 or fp64, got {logits.dtype}")
        if logits.stride(1) != 1 and logits.shape[1] > 1:
            raise ValueError(f"{name} has stride {logits.stride(1)} along the vocabulary: call .contiguous() first")
    if a.shape[1] == 0:
        raise ValueError("logits_a_NV has an empty vocabulary")
    if b is not None:
        if a.shape != b.shape:
            raise ValueError(f"the two models' logits differ in shape: {list(a.shape)} and {list(b.shape)}")
        if a.dtype != b.dtype:
            raise ValueError(f"the two models' logits differ in dtype: {a.dtype} and {b.dtype}")
        if a.device != b.device:
            raise ValueError(f"the two models' logits are on different devices: {a.device} and {b.device}")
    if token.shape != a.shape[:1] or token.is_floating_point() or token.dtype == torch.bool:
        raise ValueError(f"token_N must be integer [{a.shape[0]}], got {token.dtype} {list(token.shape)}")
    if token.device != a.device:
        raise ValueError(f"token_N is on {token.device}, the logits on {a.device}")
    if spec.token_class is not None and spec.token_class.shape[0] != a.shape[1]:
        raise ValueError(f"token_class has {spec.token_class.shape[0]} entries for a vocabulary of {a.shape[1]}")


def _check_tokens(token: Tensor, v: int) -> None:
    if token.numel() == 0:
        return
    smallest, largest = token.aminmax()
    if int(smallest) < 0 or int(largest) >= v:
        at = int(((token < 0) | (token >= v)).nonzero()[0, 0])
        raise ValueError(f"token_N[{at}] = {int(token[at])} lies outside the vocabulary 0..{v - 1}")
