"""A cache of keys and values with room for the next tokens, whose rows leave and join.

The cache of transformers is copied for every token: with 64 traces of SmolLM2 that takes as long as all of its matrix
products. Here a token is written beside the others, and the rows are copied when traces leave or join, which is rare.

Shape legend: B traces, G heads of keys and values, L tokens, D head size.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_ROOM = 128  # tokens


class GrowingLayer(DynamicLayer):
    """Keys and values [B, G, L, D] that are views of larger tensors."""

    def __init__(self) -> None:
        super().__init__()
        self._buffers: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values [B, G, new, D]; returns all of them."""
        past = self.get_seq_length()
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = past + key_states.shape[2]
        if self._buffers is None or not self._owns_rows() or end > self._buffers[0].shape[2]:
            old = (self.keys, self.values) if past else (None, None)
            self._buffers = _with_room(old[0], key_states, end), _with_room(old[1], value_states, end)
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, past:end] = states
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    def let_go(self) -> None:
        """The next update copies keys and values to a buffer of its own."""
        self._buffers = None

    def _owns_rows(self) -> bool:
        """Whether keys and values are those of the buffers, and not a selection of them."""
        if self._buffers is None or self.keys is None:
            return False
        return self.keys.data_ptr() == self._buffers[0].data_ptr() and self.keys.shape[0] == self._buffers[0].shape[0]

    def keep_and_join(self, rows: Tensor, first: int, others: Sequence[DynamicLayer], length: int) -> None:
        """Keep rows from a token on, and append those of other layers; all are padded on the left to `length`."""
        buffers = []
        for name in ("keys", "values"):
            parts = [getattr(self, name)[rows, :, first:]] if len(rows) else []
            parts += [getattr(other, name) for other in others]
            batch = sum(len(part) for part in parts)
            buffer = parts[0].new_empty(batch, parts[0].shape[1], length + _ROOM, parts[0].shape[3])
            start = 0
            for part in parts:
                end, pad = start + len(part), length - part.shape[2]
                buffer[start:end, :, :pad] = 0  # a masked NaN would still be one
                buffer[start:end, :, pad:length] = part
                start = end
            buffers.append(buffer)
        self._buffers = buffers[0], buffers[1]
        self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)


def make_cache(config: Any) -> DynamicCache:
    """An empty cache for a model; a growing one where traces can join it later."""
    cache = DynamicCache(config=config)
    if can_join(cache):
        cache.layers = [GrowingLayer() for _ in cache.layers]
    return cache


def can_join(cache: DynamicCache) -> bool:
    """Whether traces can join the cache.

    Padding between tokens would count in a sliding window and enter a recurrent state, so models with such layers keep
    the cache of transformers.
    """
    return len(cache.layers) > 0 and all(type(layer) in (DynamicLayer, GrowingLayer) for layer in cache.layers)


def from_prefix(prefix: DynamicCache) -> DynamicCache:
    """A cache that continues that of one trace, for as many traces as the next tokens have; `prefix` stays as it is."""
    cache = copy.copy(prefix)
    cache.layers = [copy.copy(layer) for layer in prefix.layers]
    for layer in cache.layers:
        assert isinstance(layer, GrowingLayer)
        layer.let_go()
    return cache


def keep_and_join(cache: DynamicCache, rows: Tensor, first: int, others: Sequence[DynamicCache], length: int) -> None:
    """`GrowingLayer.keep_and_join` of all layers; a layer that uses those of another stays empty."""
    for index, layer in enumerate(cache.layers):
        joining: list[Any] = [other.layers[index] for other in others]
        if isinstance(layer, GrowingLayer) and layer.get_seq_length():
            layer.keep_and_join(rows, first, joining, length)


def _with_room(old: Tensor | None, states: Tensor, end: int) -> Tensor:
    b, g, _, d = states.shape
    buffer = states.new_empty(b, g, end + max(_ROOM, end // 4), d)
    if old is not None:  # of one trace or of as many
        buffer[:, :, : old.shape[2]] = old
    return buffer


def padded_left(mask_BL: Tensor, length: int) -> Tensor:
    """A mask [B, length] with zeros before it."""
    return torch.nn.functional.pad(mask_BL, (length - mask_BL.shape[1], 0))
