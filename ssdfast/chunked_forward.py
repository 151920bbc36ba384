"""Last hidden states of selected rows, in memory that the chunk bounds and not the sequence.

Sequences that fit into `chunk_tokens` go through the model together, padded on the right. Nothing masks the padding,
because a causal model never attends to later tokens. The tokens with which all of them begin, such as the prompt of
several samples or worked examples, are read once, and each sequence continues from their keys and values.

A longer sequence is processed in chunks, by one of three strategies; `prepare` selects the first that reproduces this
model's own hidden states:

* ``layers``: all chunks pass a layer before any of them passes the next. The past that a chunk needs is then one
  layer's keys and values, or one layer's recurrent state, and never that of all layers: for SmolLM2 in bf16, 768 bytes
  per token instead of 23 kB, beside the hidden states themselves (1.2 kB). No layer runs twice; each costs one more
  embedding, mask and final norm of the chunk, a few percent.
* ``cache``: every chunk passes all layers, as in generation, and the cache holds the past of all layers.
* ``whole``: no chunks, for a model that cannot continue from a cache.

Shape legend: B sequences, L tokens of the longest, P tokens with which all begin, N selected rows, H hidden size.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from . import chunked_attention
from .models import LanguageModel

ChunkStrategy = Literal["layers", "cache", "whole"]

_TRIAL_LENGTH, _TRIAL_CHUNK = 40, 16
_LEAST_SAVED = 1 / 8
_PASS_TOKENS = {"cpu": 32, "cuda": 1024}
"""A shared prefix costs a second pass through the layers. It is worth it from this fraction of a batch's tokens on, and
from so many tokens on as a small pass takes the time of: reading the weights on a CPU, launching kernels on a GPU."""
_BY_LENGTH = ("dynamic", "longrope")
"""rotary embeddings that depend on the length of what is read, so that no part of it can be read alone"""


@dataclass(frozen=True)
class ReadingStrategy:
    """How a model reads sequences; from `prepare`."""

    chunks: ChunkStrategy
    shares_prefix: bool = False
    """whether the tokens with which all sequences of a batch begin are read once"""


@torch.inference_mode()
def hidden_states(
    model: LanguageModel,
    sequences: Sequence[np.ndarray],
    rows: Sequence[np.ndarray],
    chunk_tokens: int,
    strategy: ReadingStrategy,
) -> list[Tensor]:
    """The last hidden states [N, H] at `rows` of each sequence, in the model's dtype, after the final norm.

    sequences: token ids, each at least one. rows: indices into its sequence. Several sequences are padded to the
    longest and processed together, so the caller groups those of similar length. strategy: from `prepare`.
    """
    length = max(map(len, sequences))
    ids_BL = torch.zeros(len(sequences), length, dtype=torch.int64)
    for row_L, ids in zip(ids_BL, sequences, strict=True):
        row_L[: len(ids)] = torch.from_numpy(np.asarray(ids, np.int64))
    chunk = max(1, chunk_tokens // len(sequences))
    ids_BL = ids_BL.to(model.device)
    prefix = _prefix_length(sequences, model.device) if strategy.shares_prefix and length <= chunk else 0
    if prefix:
        hidden_BLH = _after_prefix(model.model.base_model, ids_BL, prefix)
    else:
        hidden_BLH = _run(model, ids_BL, chunk, strategy.chunks)
    return [hidden_LH[torch.from_numpy(r).to(model.device)] for hidden_LH, r in zip(hidden_BLH, rows, strict=True)]


@torch.inference_mode()
def prepare(model: LanguageModel) -> ReadingStrategy:
    """The first way to read chunks that leaves the hidden states of a short trial sequence unchanged, and whether a
    prefix can be shared.

    On a CPU the model gets an attention that needs no mask for the past, if the model supports it.
    """
    if _rotates_by_length(model.model.base_model.config):
        return ReadingStrategy("whole")
    ids_BL = (torch.arange(_TRIAL_LENGTH, device=model.device) * 7919 % model.vocabulary)[None]
    expected_BLH = _run(model, ids_BL, _TRIAL_CHUNK, "whole").float()
    rounding = 1e-4 if model.head.weight_VH.dtype == torch.float32 else 3e-2
    own = model.model.config._attn_implementation
    attentions = [chunked_attention.NAME, own] if own == "sdpa" and model.device.type == "cpu" else [own]
    chunks: tuple[ChunkStrategy, ...] = ("layers", "cache")

    def reproduces(expected_BLH: Tensor, run: Callable[..., Tensor], *args: Any) -> bool:
        try:
            actual_BLH = run(*args).float()
        except Exception:  # an architecture without such layers or such a cache can fail in any way
            return False
        return torch.allclose(actual_BLH, expected_BLH, rtol=rounding, atol=rounding * float(expected_BLH.abs().max()))

    def in_chunks(name: str, strategy: ChunkStrategy) -> Tensor:
        model.model.set_attn_implementation(name)
        return _run(model, ids_BL, _TRIAL_CHUNK, strategy)

    for name, strategy in itertools.product(attentions, chunks):
        if reproduces(expected_BLH, in_chunks, name, strategy):
            two_BL = torch.cat([ids_BL, torch.cat([ids_BL[:, :_TRIAL_CHUNK], ids_BL[:, :-_TRIAL_CHUNK]], 1)])
            expected_BLH = _run(model, two_BL, _TRIAL_LENGTH, "whole").float()
            shares_prefix = reproduces(expected_BLH, _after_prefix, model.model.base_model, two_BL, _TRIAL_CHUNK)
            return ReadingStrategy(strategy, shares_prefix)
    model.model.set_attn_implementation(own)
    return ReadingStrategy("whole")


def _rotates_by_length(config: Any) -> bool:
    parameters = getattr(config, "rope_parameters", None) or {}
    by_layer_type = [value for value in parameters.values() if isinstance(value, dict)]
    return any(each.get("rope_type") in _BY_LENGTH for each in (parameters, *by_layer_type))


def _prefix_length(sequences: Sequence[np.ndarray], device: torch.device) -> int:
    """How many tokens to read once for all sequences: those with which all begin, or 0 where that saves little."""
    shortest, longest = min(map(len, sequences)), max(map(len, sequences))
    ids_BP = np.stack([ids[:shortest] for ids in sequences])
    differ_P = (ids_BP != ids_BP[0]).any(0)
    length = min(int(differ_P.argmax()) if differ_P.any() else shortest, longest - 1)
    saved = (len(sequences) - 1) * length
    least = max(_LEAST_SAVED * len(sequences) * longest, _PASS_TOKENS.get(device.type, 0))
    return length if saved >= least else 0


def _after_prefix(base: Any, ids_BL: Tensor, prefix: int) -> Tensor:
    sequences, length = ids_BL.shape
    cache = DynamicCache(config=base.config)
    prefix_1PH = _continue(base, ids_BL[:1], slice(0, prefix), cache)
    first: Any = torch.zeros(sequences, dtype=torch.int64, device=ids_BL.device)
    cache.reorder_cache(first)
    rest_BLH = _continue(base, ids_BL, slice(prefix, length), cache)
    return torch.cat([prefix_1PH.expand(sequences, -1, -1), rest_BLH], 1)


def _run(model: LanguageModel, ids_BL: Tensor, chunk: int, strategy: ChunkStrategy) -> Tensor:
    base = model.model.base_model
    if strategy == "whole" or ids_BL.shape[1] <= chunk:
        hidden_BLH: Tensor = base(input_ids=ids_BL, use_cache=False).last_hidden_state
        return hidden_BLH
    return (_by_layers if strategy == "layers" else _with_cache)(base, ids_BL, chunk)


def _with_cache(base: Any, ids_BL: Tensor, chunk: int) -> Tensor:
    cache = DynamicCache(config=base.config)
    return torch.cat([_continue(base, ids_BL, span, cache) for span in _spans(ids_BL, chunk)], 1)


def _by_layers(base: Any, ids_BL: Tensor, chunk: int) -> Tensor:
    """The model's own forward of each chunk, with its masks and position embeddings, and a single active layer."""
    layers: nn.ModuleList = base.layers
    flow_BLH: Tensor | None = None
    for index, layer in enumerate(layers):
        cache = _single_layer_cache(base.config, index)
        forward = layer.forward
        for span in _spans(ids_BL, chunk):

            def active(
                embedded_BLH: Tensor,
                *args: Any,
                forward: Any = forward,
                span: slice = span,
                index: int = index,
                **kwargs: Any,
            ) -> Tensor:
                nonlocal flow_BLH
                before_BLH = embedded_BLH if flow_BLH is None or index == 0 else flow_BLH[:, span]
                after_BLH: Tensor = forward(before_BLH, *args, **kwargs)
                if flow_BLH is None:
                    flow_BLH = after_BLH.new_empty(*ids_BL.shape, after_BLH.shape[-1])
                flow_BLH[:, span] = after_BLH
                return after_BLH

            with _only(layers, index, active):
                last_BLH = _continue(base, ids_BL, span, cache)
            if index == len(layers) - 1 and flow_BLH is not None:
                flow_BLH[:, span] = last_BLH
    assert flow_BLH is not None
    return flow_BLH


def _single_layer_cache(config: Any, index: int) -> DynamicCache:
    """A cache in which the layer's past replaces that of every layer of its kind.

    A model sizes its masks by the first layer of a kind, whose past is no longer there.
    """
    cache = DynamicCache(config=config)
    own = cache.layers[index]
    cache.layers = [own if type(other) is type(own) else other for other in cache.layers]
    return cache


@contextmanager
def _only(layers: nn.ModuleList, index: int, active: Callable[..., Tensor]) -> Iterator[None]:
    """Every layer but one returns its input."""
    for i, layer in enumerate(layers):
        layer.forward = active if i == index else _identity
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # the class's own forward applies again


def _identity(hidden_BLH: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return hidden_BLH


def _continue(base: Any, ids_BL: Tensor, span: slice, cache: DynamicCache) -> Tensor:
    positions_1L = torch.arange(span.start, span.stop, device=ids_BL.device)[None]
    hidden_BLH: Tensor = base(
        input_ids=ids_BL[:, span], position_ids=positions_1L, past_key_values=cache, use_cache=True
    ).last_hidden_state
    return hidden_BLH


def _spans(ids_BL: Tensor, chunk: int) -> Iterator[slice]:
    length = ids_BL.shape[1]
    for start in range(0, length, chunk):
        yield slice(start, min(length, start + chunk))
