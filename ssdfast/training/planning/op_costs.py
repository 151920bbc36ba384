"""A function of tensors without numbers, whose memory is measured once for each layout of its arguments.

A delta rule without kernels of its own goes along the sequence in chunks: thousands of operators for a tile, the same
ones for every tile and layer. Once measured, a call takes in one piece what the function took: as many bytes after it
and at its peak, forward and backward.
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

from .memory_tracker import DEVICE, LiveBytes
from .shape_cache import Layout

DELTA_RULE = "torch_chunk_gated_delta_rule"
"""in transformers' sources of models with gated delta nets"""


class _Took(NamedTuple):
    """Bytes, and what the results look like."""

    forward: int
    """at the peak, beside results and what is kept"""
    kept: int
    """for the backward pass"""
    backward: int
    """at the peak, beside what was kept and the gradients"""
    gradients: list[Layout | None]
    """of each argument that is a tensor"""
    results: list[Any]
    structure: Any


class Measured:
    """``Measured(run)(...)`` has results and gradients of the layouts that ``run(...)`` has, and takes its bytes.

    run: keeps copies for its backward pass, none of its arguments themselves.
    """

    def __init__(self, run: Callable[..., Any]) -> None:
        self.run = run
        self._known: dict[Any, _Took] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, structure = tree_flatten((args, kwargs))
        key = structure, torch.is_grad_enabled(), *map(_key, leaves)
        if key not in self._known:
            self._known[key] = self._measure(leaves, structure)
        took = self._known[key]
        made = iter(_Replayed.apply(took, *(x for x in leaves if isinstance(x, Tensor))))
        results = [next(made) if isinstance(x, Layout) else x for x in took.results]
        return tree_unflatten(results, took.structure)

    def _measure(self, leaves: list[Any], structure: Any) -> _Took:
        live = LiveBytes("")
        keep = torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x)  # and not as a checkpoint would
        with _disable_current_modes(), live, keep:
            fresh = [
                Layout.of(x).made().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x for x in leaves
            ]
            wanted = [x for x in fresh if isinstance(x, Tensor) and x.requires_grad]
            before = live.total
            live.start()
            args, kwargs = tree_unflatten(fresh, structure)
            results, of_results = tree_flatten(self.run(*args, **kwargs))
            tensors = [x for x in results if isinstance(x, Tensor)]
            made, forward = _bytes(tensors), live.most - before
            kept = live.total - before - made
            flowing = [x for x in tensors if x.requires_grad]
            gradients: tuple[Tensor, ...] = ()
            backward = 0
            if flowing:
                # Of no bytes: what flows in is let go as soon as it has been converted.
                flows_in = [torch.empty((), dtype=x.dtype, device=DEVICE).expand(x.shape) for x in flowing]
                before = live.total
                live.start()
                gradients = torch.autograd.grad(flowing, wanted, flows_in)
                backward = live.most - before - _bytes(gradients) - _bytes(flowing)
        found = iter(gradients)
        of_gradients = [
            Layout.of(next(found)) if gradients and x.requires_grad else None for x in fresh if isinstance(x, Tensor)
        ]
        layouts = [Layout.of(x) if isinstance(x, Tensor) else x for x in results]
        return _Took(forward - kept - made, kept, backward, of_gradients, layouts, of_results)


class _Replayed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, took: _Took, *arguments: Tensor) -> tuple[Tensor, ...]:
        made = tuple(x.made() for x in took.results if isinstance(x, Layout))
        kept = _room(took.kept)
        _room(took.forward)
        ctx.save_for_backward(kept)
        ctx.took = took
        return made

    @staticmethod
    def backward(ctx: Any, *flows_in: Tensor) -> Any:
        kept = ctx.saved_tensors  # noqa: F841  # until the end
        gradients = [None if layout is None else layout.made() for layout in ctx.took.gradients]
        _room(ctx.took.backward)
        return None, *gradients


@contextmanager
def measured_delta_rules(network: Any) -> Iterator[None]:
    """Gated delta nets of `network` by `Measured`."""
    sources = {sys.modules[type(layer).__module__] for layer in network.modules() if hasattr(layer, "linear_attn")}
    with ExitStack() as patches:
        for source in sources:
            if hasattr(source, DELTA_RULE):
                patches.enter_context(patch.object(source, DELTA_RULE, _measured(getattr(source, DELTA_RULE))))
        yield


_measured = cache(Measured)


def _room(size: int) -> Tensor:
    return torch.empty(max(0, size), dtype=torch.uint8, device=DEVICE)


def _bytes(tensors: Any) -> int:
    return sum(
        storage.nbytes() for storage in {x.untyped_storage()._cdata: x.untyped_storage() for x in tensors}.values()
    )


def _key(x: Any) -> Any:
    return (x.shape, x.stride(), x.dtype, x.requires_grad) if isinstance(x, Tensor) else x
