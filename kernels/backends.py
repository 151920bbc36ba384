"""Which backends can run here, and which one is fastest for a tensor.

An operation's directory holds one module per backend: ``reference`` (the definition, plain torch), ``cpu`` (C++) and
``triton`` (GPU).
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import ParamSpec, Protocol, TypeVar, cast

import torch
from torch import Tensor

Args = ParamSpec("Args")
Result = TypeVar("Result", covariant=True)

DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # of every backend; the reference also takes float64
_NAMES = ("reference", "cpu", "triton")


def backends() -> tuple[str, ...]:
    """The backends that can run on this machine."""
    return tuple(filter(can_run, _NAMES))


class Operation(Protocol[Args, Result]):
    """An operation with ``backends()``, the names of those that can run on this machine."""

    backends: Callable[[], tuple[str, ...]]

    def __call__(self, *args: Args.args, **kwargs: Args.kwargs) -> Result: ...


def with_backends(function: Callable[Args, Result]) -> Operation[Args, Result]:
    """Gives the function its attribute ``backends``."""
    operation = cast(Operation[Args, Result], function)
    operation.backends = backends
    return operation


def can_run(backend: str) -> bool:
    """Whether this backend can run here. Imports only what this backend needs."""
    return _missing(backend) is None


def fastest(tensor: Tensor) -> str:
    """The fastest backend for tensors of this dtype and device."""
    if tensor.dtype in DTYPES:
        if tensor.is_cuda and can_run("triton"):
            return "triton"
        if tensor.device.type == "cpu":
            if can_run("cpu"):
                return "cpu"
            _warn_once(f"the kernels run in plain torch, which is slow: {_missing('cpu')}")
    return "reference"


def implementation(operation: str, backend: str, dtype: torch.dtype) -> ModuleType:
    """The module of a backend of the operation (a package of ``ssdfast.kernels``), for tensors of this dtype.

    Raises ValueError for an unknown backend or a dtype that it does not take, and RuntimeError if it cannot run here.
    """
    if backend not in _NAMES:
        raise ValueError(f"backend must be one of {', '.join(backends())}, got {backend!r}")
    if backend != "reference" and dtype not in DTYPES:
        raise ValueError(f"backend {backend!r} takes bf16, fp16 or fp32, got {dtype}: use backend='reference'")
    if reason := _missing(backend):
        raise RuntimeError(reason)
    return importlib.import_module(f"{__package__}.{operation}.{backend}")


@functools.cache
def _missing(backend: str) -> str | None:
    """What a backend lacks here, or None if it can run."""
    if backend == "cpu":
        try:
            from . import _C  # type: ignore[attr-defined]  # noqa: F401
        except (ImportError, OSError) as error:
            return (
                f"the C++ extension is not built ({error}): install ssdfast where there is a C++17 compiler, or from a"
                " wheel; for a checkout, with pip install -e"
            )
    if backend == "triton":
        try:
            import triton
        except ImportError as error:
            return f"triton is not installed ({error}): pip install triton"
        if not (torch.cuda.is_available() or triton.knobs.runtime.interpret):
            return "the triton backend needs a CUDA or HIP device: use backend='cpu' or backend='reference'"
    return None


@functools.cache
def _warn_once(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=3)
