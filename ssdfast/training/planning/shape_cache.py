"""Caches the layouts of the results of operators on meta tensors.

torch computes many of them in Python, half a millisecond each, and a training step repeats the same few hundred
operators tens of thousands of times.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten


class Layout(NamedTuple):
    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    @staticmethod
    def from_tensor(x: Tensor) -> Layout:
        return Layout(x.shape, x.stride(), x.dtype)

    def empty(self) -> Tensor:
        """A new meta tensor."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")


class _Results(NamedTuple):
    leaves: list[Any]
    """a layout for each tensor, other values as they are"""
    structure: TreeSpec


_ITSELF, _VIEW = object(), object()


class ShapeCache:
    """``call(operator, args, kwargs)`` returns what the operator returns. All tensors are meta tensors."""

    def __init__(self) -> None:
        self._cached: dict[Any, Any] = {}

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func.namespace != "aten":
            return func(*args, **kwargs)
        key = func, _key(args), _key(tuple(kwargs.items()))
        cached = self._cached.get(key)
        if cached is None:
            result = func(*args, **kwargs)
            self._cached[key] = _cache_entry(result, args, kwargs)
            return result
        if cached is _ITSELF:
            return args[0]
        if cached is _VIEW:
            return func(*args, **kwargs)
        if isinstance(cached, Layout):
            return cached.empty()
        leaves = [leaf.empty() if isinstance(leaf, Layout) else leaf for leaf in cached.leaves]
        return tree_unflatten(leaves, cached.structure)


def _cache_entry(result: Any, args: Any, kwargs: Any) -> Any:
    """What a later call makes its result from. An operator that works in place returns its argument."""
    if args and result is args[0]:
        return _ITSELF
    arguments = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
    leaves, structure = tree_flatten(result)
    tensors = [x for x in leaves if isinstance(x, Tensor)]
    if any(x.untyped_storage()._cdata in arguments or x.device.type != "meta" for x in tensors):
        return _VIEW
    if isinstance(result, Tensor):
        return Layout.from_tensor(result)
    layouts = [Layout.from_tensor(x) if isinstance(x, Tensor) else x for x in leaves]
    return _Results(layouts, structure)


def _key(x: Any) -> Any:
    if isinstance(x, Tensor):
        return x.shape, x.stride(), x.dtype
    if isinstance(x, list | tuple):
        return tuple(map(_key, x))
    return type(x), x
