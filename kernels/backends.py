"""Which backends can run here, and which one is fastest for a tensor.

An operation's directory holds one module a backend: ``reference`` (the definition, plain torch), ``cpu`` (C++),
``triton`` (GPU).
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # what every backend takes; the reference also takes float64
_NAMES = ("reference", "cpu", "triton")


def backends() -> tuple[str, ...]:
    """The backends that can run on this machine."""
    return tuple(filter(can_run, _NAMES))


def can_run(backend: str) -> bool:
    """Asks for this one alone: nothing that another needs is imported."""
    return _why_not(backend) is None


def fastest(tensor: Tensor) -> str:
    """The backend to take for tensors like this one."""
    if tensor.dtype in DTYPES:
        if tensor.is_cuda and can_run("triton"):
            return "triton"
        if tensor.device.type == "cpu" and can_run("cpu"):
            return "cpu"
    return "reference"


def implementation(operation: str, backend: str, dtype: torch.dtype) -> ModuleType:
    """The module of a backend of the operation (a package of ``ssdfast.kernels``), for tensors of this dtype.

    Raises ValueError for an unknown backend, or for a dtype that it does not take; RuntimeError if it cannot run here.
    """
    if backend not in _NAMES:
        raise ValueError(f"backend must be one of {', '.join(backends())}, got {backend!r}")
    if backend != "reference" and dtype not in DTYPES:
        raise ValueError(f"backend {backend!r} takes bf16, fp16 or fp32, got {dtype}: use backend='reference'")
    if reason := _why_not(backend):
        raise RuntimeError(reason)
    return importlib.import_module(f"{__package__}.{operation}.{backend}")


@functools.cache
def _why_not(backend: str) -> str | None:
    """None for a backend that can run here, or what it lacks."""
    if backend == "cpu":
        try:
            from . import _C  # type: ignore[attr-defined]  # noqa: F401
        except (ImportError, OSError) as error:
            return f"the C++ extension is not built ({error}): install ssdfast with a C++17 compiler at hand"
    if backend == "triton":
        try:
            import triton
        except ImportError as error:
            return f"triton is not installed ({error}): pip install triton"
        if not (torch.cuda.is_available() or triton.knobs.runtime.interpret):
            return "the triton backend needs a CUDA or HIP device: use backend='cpu' or backend='reference'"
    return None
