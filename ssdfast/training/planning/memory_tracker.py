"""Counts the bytes of live tensors by category, and keeps the peak.

The tensors are meta tensors: they have shapes, dtypes, storages and a graph, but no numbers, so a model of any size
runs in no memory and little time. (A `FakeTensorMode` would say that they are on CUDA, for which autograd requires a
torch that was built with CUDA.) A tensor that is created on the "cpu" counts for the host of the planned device, which
has a category of its own.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .shape_cache import ShapeCache

DEVICE = "meta"
HOST = "host"
"""the category of tensors that are not on the device"""

aten = torch.ops.aten
Workspaces = Mapping[Any, Callable[..., int]]
"""for operators that take memory while they compute: bytes, from the operator's arguments"""


class MemoryTracker(TorchDispatchMode):
    """While it is entered, each new storage counts for `category`, until it is freed or moved to another category.

    workspaces: memory of operators beside their results, which meta tensors never take.
    copies: a conversion of a tensor of the first category makes one of the second, whatever `category` is.
    """

    def __init__(
        self, category: str, workspaces: Workspaces | None = None, copies: tuple[str, str] | None = None
    ) -> None:
        super().__init__()
        self.category, self.workspaces, self.copies = category, workspaces or {}, copies
        self._cache = ShapeCache()
        self.current: Counter[str] = Counter()
        """bytes of each category"""
        self.peak: Counter[str] = Counter()
        """bytes of each category when the device had its maximum; for the host its own maximum"""
        self.total = self.max_total = 0
        """bytes on the device, now and at the peak"""
        self._storages: dict[int, tuple[str, int, Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is aten.add.Tensor and _sums_gradients(*args):
            return args[0]
        kwargs = kwargs or {}
        on_host = kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cpu"
        if on_host:
            kwargs = {**kwargs, "device": DEVICE}
        category, workspace = self._new_category(func, args, on_host), self.workspaces.get(func)
        extra = workspace(*args, **kwargs) if workspace else 0
        result = self._cache.call(func, args, kwargs)
        for x in (result,) if isinstance(result, Tensor) else tree_leaves(result):
            if isinstance(x, Tensor) and x.device.type == DEVICE:
                self.count(x, category, pinned=on_host and func is not aten._to_copy.default)
        if extra:
            self._grow(category, extra)
            self._grow(category, -extra)
        return result

    def count(self, x: Tensor, category: str, pinned: bool = False) -> None:
        """Counts the storage of `x` for `category`, if it is not counted yet."""
        storage = x.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return
        size = storage.nbytes()
        if pinned and size:  # torch's allocator of pinned memory takes powers of two
            size = 1 << (size - 1).bit_length()
        self._storages[key] = category, size, weakref.ref(storage, lambda _: self._free(key))
        self._grow(category, size)

    def reset_peak(self) -> None:
        """Forget the peak so far."""
        self.peak, self.max_total = self.current.copy(), self.total

    def move(self, x: Tensor, category: str) -> None:
        """Counts the storage of `x` for another category from now on."""
        key = x.untyped_storage()._cdata
        previous, size, reference = self._storages[key]
        self._storages[key] = category, size, reference
        self.current[previous] -= size
        self.current[category] += size

    def move_all(self, previous: str, category: str) -> None:
        """Counts all storages of one category for another from now on."""
        for key, (counted_for, size, reference) in self._storages.items():
            if counted_for == previous:
                self._storages[key] = category, size, reference
        self.current[category] += self.current.pop(previous, 0)

    def _category(self, x: Tensor) -> str | None:
        entry = self._storages.get(x.untyped_storage()._cdata)
        return entry[0] if entry else None

    def _new_category(self, func: Any, args: Any, on_host: bool) -> str:
        if on_host:
            return HOST
        if self.copies and func is aten._to_copy.default and self._category(args[0]) == self.copies[0]:
            return self.copies[1]
        return self.category

    def _free(self, key: int) -> None:
        category, size, _ = self._storages.pop(key)
        self._grow(category, -size)

    def _grow(self, category: str, size: int) -> None:
        self.current[category] += size
        if category == HOST:
            self.peak[HOST] = max(self.peak[HOST], self.current[HOST])
            return
        self.total += size
        if self.total > self.max_total:
            self.max_total = self.total
            host = self.peak[HOST]
            self.peak = self.current.copy()
            self.peak[HOST] = host


def _sums_gradients(x: Any, y: Any) -> bool:
    """Whether autograd sums the gradients of a node. It does so in place, but not while a dispatch mode is active."""
    return (
        torch._C._current_graph_task_id() >= 0
        and not torch.is_grad_enabled()
        and isinstance(y, Tensor)
        and (x.shape, x.dtype) == (y.shape, y.dtype)
        and x.untyped_storage().nbytes() == x.nbytes
    )
