"""Measures the memory of a function of meta tensors once for each layout of its arguments, and replays it.

A delta rule without kernels of its own loops over chunks of the sequence: thousands of operators for a tile, the same
ones for every tile and layer. After the first call, a call allocates at once what the function allocated: the same
bytes after it and at its peak, forward and backward.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_unflatten

from .memory_tracker import DEVICE, MemoryTracker
from .shape_cache import Layout

DELTA_RULE = "torch_chunk_gated_delta_rule"
"""its name in transformers' modules of models with gated delta nets"""


class _Cost(NamedTuple):
    """Bytes, and the layouts of the results."""

    forward: int
    """at the peak, beside results and saved tensors"""
    saved: int
    """for the backward pass"""
    backward: int
    """at the peak, beside saved tensors and gradients"""
    gradients: list[Layout | None]
    """of each argument that is a tensor"""
    results: list[Any]
    structure: Any


class MeasuredFunction:
    """``MeasuredFunction(run)(...)`` returns results and gradients of the layouts of ``run(...)``, and takes its bytes.

    run: must save copies for its backward pass, none of its arguments themselves.
    """

    def __init__(self, run: Callable[..., Any]) -> None:
        self.run = run
        self._costs: dict[Any, _Cost] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, structure = tree_flatten((args, kwargs))
        key = structure, torch.is_grad_enabled(), *map(_key, leaves)
        if key not in self._costs:
            self._costs[key] = self._measure(leaves, structure)
        cost = self._costs[key]
        tensors = iter(_Replay.apply(cost, *(x for x in leaves if isinstance(x, Tensor))))
        results = [next(tensors) if isinstance(x, Layout) else x for x in cost.results]
        return tree_unflatten(results, cost.structure)

    def _measure(self, leaves: list[Any], structure: Any) -> _Cost:
        tracker = MemoryTracker("")
        save_all = torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x)  # overrides checkpointing's hooks
        with _disable_current_modes(), tracker, save_all:
            inputs = [
                Layout.from_tensor(x).empty().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x
                for x in leaves
            ]
            trained = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
            before = tracker.total
            tracker.reset_peak()
            args, kwargs = tree_unflatten(inputs, structure)
            results, result_structure = tree_flatten(self.run(*args, **kwargs))
            tensors = [x for x in results if isinstance(x, Tensor)]
            result_bytes, forward = _bytes(tensors), tracker.max_total - before
            saved = tracker.total - before - result_bytes
            outputs = [x for x in tensors if x.requires_grad]
            gradients: tuple[Tensor, ...] = ()
            backward = 0
            if outputs:
                # Of no bytes: these gradients are freed as soon as they have been converted.
                grad_outputs = [torch.empty((), dtype=x.dtype, device=DEVICE).expand(x.shape) for x in outputs]
                before = tracker.total
                tracker.reset_peak()
                gradients = torch.autograd.grad(outputs, trained, grad_outputs)
                backward = tracker.max_total - before - _bytes(gradients) - _bytes(outputs)
        remaining = iter(gradients)
        gradient_layouts = [
            Layout.from_tensor(next(remaining)) if gradients and x.requires_grad else None
            for x in inputs
            if isinstance(x, Tensor)
        ]
        result_layouts = [Layout.from_tensor(x) if isinstance(x, Tensor) else x for x in results]
        return _Cost(
            forward - saved - result_bytes, saved, backward, gradient_layouts, result_layouts, result_structure
        )


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cost: _Cost, *arguments: Tensor) -> tuple[Tensor, ...]:
        results = tuple(x.empty() for x in cost.results if isinstance(x, Layout))
        saved = _allocate(cost.saved)
        _allocate(cost.forward)
        ctx.save_for_backward(saved)
        ctx.cost = cost
        return results

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        saved = ctx.saved_tensors  # noqa: F841  # is alive until the end
        gradients = [None if layout is None else layout.empty() for layout in ctx.cost.gradients]
        _allocate(ctx.cost.backward)
        return None, *gradients


@contextmanager
def measured_delta_rules(network: Any) -> Iterator[None]:
    """Replaces the delta rule of gated delta nets of `network` by a `MeasuredFunction`."""
    modules = {sys.modules[type(layer).__module__] for layer in network.modules() if hasattr(layer, "linear_attn")}
    with ExitStack() as patches:
        for module in modules:
            if hasattr(module, DELTA_RULE):
                patches.enter_context(patch.object(module, DELTA_RULE, _measured(getattr(module, DELTA_RULE))))
        yield


_measured = cache(MeasuredFunction)


def _allocate(size: int) -> Tensor:
    return torch.empty(max(0, size), dtype=torch.uint8, device=DEVICE)


def _bytes(tensors: Any) -> int:
    return sum(
        storage.nbytes() for storage in {x.untyped_storage()._cdata: x.untyped_storage() for x in tensors}.values()
    )


def _key(x: Any) -> Any:
    return (x.shape, x.stride(), x.dtype, x.requires_grad) if isinstance(x, Tensor) else x
