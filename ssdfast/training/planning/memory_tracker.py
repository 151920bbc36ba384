"""Counts the bytes of tensors that are alive, by what they are for, and keeps the peak.

Tensors are torch's own fakes, those of the `meta` device: shapes, dtypes, storages and a graph, but no numbers, so that
a model of any size runs in no memory and little time. (A `FakeTensorMode` would call them CUDA's, for which autograd
wants a torch that was built with CUDA.) What asks for a place on the "cpu" gets one on the host of the device that is
planned, which is counted by itself.
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

from .shape_cache import Remembered

DEVICE = "meta"
HOST = "host"
"""the part of tensors beside the device"""

aten = torch.ops.aten
Rooms = Mapping[Any, Callable[..., int]]
"""of operators that take memory while they compute: bytes, from the operator's arguments"""


class LiveBytes(TorchDispatchMode):
    """While it is entered, each new storage counts for `part`, until it is freed or given to another part.

    rooms: memory of operators beside their results, which a tensor without numbers never takes.
    copies: a conversion of a tensor of the first part makes one of the second, whatever `part` is.
    """

    def __init__(self, part: str, rooms: Rooms | None = None, copies: tuple[str, str] | None = None) -> None:
        super().__init__()
        self.part, self.rooms, self.copies = part, rooms or {}, copies
        self._remembered = Remembered()
        self.now: Counter[str] = Counter()
        """bytes of each part"""
        self.peak: Counter[str] = Counter()
        """bytes of each part when those on the device were most; of the host its own most"""
        self.total = self.most = 0
        """bytes on the device, now and at the peak"""
        self._parts: dict[int, tuple[str, int, Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is aten.add.Tensor and _sums_gradients(*args):
            return args[0]
        kwargs = kwargs or {}
        on_host = kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cpu"
        if on_host:
            kwargs = {**kwargs, "device": DEVICE}
        part, room = self._part_of(func, args, on_host), self.rooms.get(func)
        held = room(*args, **kwargs) if room else 0
        found = self._remembered.call(func, args, kwargs)
        for x in (found,) if isinstance(found, Tensor) else tree_leaves(found):
            if isinstance(x, Tensor) and x.device.type == DEVICE:
                self.count(x, part, pinned=on_host and func is not aten._to_copy.default)
        if held:
            self._grow(part, held)
            self._grow(part, -held)
        return found

    def count(self, x: Tensor, part: str, pinned: bool = False) -> None:
        """The storage of `x` counts for `part`, if it counts for none yet."""
        storage = x.untyped_storage()
        key = storage._cdata
        if key in self._parts:
            return
        size = storage.nbytes()
        if pinned and size:  # torch's allocator of pinned memory takes powers of two
            size = 1 << (size - 1).bit_length()
        self._parts[key] = part, size, weakref.ref(storage, lambda _: self._free(key))
        self._grow(part, size)

    def start(self) -> None:
        """Forget the peak so far."""
        self.peak, self.most = self.now.copy(), self.total

    def give(self, x: Tensor, part: str) -> None:
        """The storage of `x` counts for another part from now on."""
        key = x.untyped_storage()._cdata
        was, size, reference = self._parts[key]
        self._parts[key] = part, size, reference
        self.now[was] -= size
        self.now[part] += size

    def give_all(self, was: str, part: str) -> None:
        """Likewise all that counts for the part `was`."""
        for key, (now, size, reference) in self._parts.items():
            if now == was:
                self._parts[key] = part, size, reference
        self.now[part] += self.now.pop(was, 0)

    def part_of(self, x: Tensor) -> str | None:
        found = self._parts.get(x.untyped_storage()._cdata)
        return found[0] if found else None

    def _part_of(self, func: Any, args: Any, on_host: bool) -> str:
        if on_host:
            return HOST
        if self.copies and func is aten._to_copy.default and self.part_of(args[0]) == self.copies[0]:
            return self.copies[1]
        return self.part

    def _free(self, key: int) -> None:
        part, size, _ = self._parts.pop(key)
        self._grow(part, -size)

    def _grow(self, part: str, size: int) -> None:
        self.now[part] += size
        if part == HOST:
            self.peak[HOST] = max(self.peak[HOST], self.now[HOST])
            return
        self.total += size
        if self.total > self.most:
            self.most = self.total
            host = self.peak[HOST]
            self.peak = self.now.copy()
            self.peak[HOST] = host


def _sums_gradients(x: Any, y: Any) -> bool:
    """Whether autograd adds up what flows into a node: in place, but not while a mode looks on."""
    return (
        torch._C._current_graph_task_id() >= 0
        and not torch.is_grad_enabled()
        and isinstance(y, Tensor)
        and (x.shape, x.dtype) == (y.shape, y.dtype)
        and x.untyped_storage().nbytes() == x.nbytes
    )
