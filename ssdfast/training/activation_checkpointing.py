"""Training memory that grows with the sequence by one layer's needs instead of all layers'.

    checkpoint_layers(model, offload=True)    # one layer's activations at a time; layer inputs wait in host memory
    tile_mlps(model, 8192)                    # tiles.py: an MLP's intermediate exists for 8,192 tokens at a time
    tile_linear_attention(model, 8192)        # likewise a gated delta net's, and tile_norms a norm's
    accumulate_in_float32(model)              # bf16 weights, float32 gradients

Each changes a loaded transformers model in place, alone or together with the others, and none changes what is
computed: losses and gradients are those of the untouched model up to the order of sums. ``save_pretrained`` writes the
same files.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint


def decoder(model: nn.Module) -> Any:
    """The part of a causal LM with `layers` and `norm`. Raises ValueError where there is none."""
    base: Any = getattr(model, "base_model", None)
    if not isinstance(getattr(base, "layers", None), nn.ModuleList) or not hasattr(base, "norm"):
        raise ValueError(f"{type(model).__name__} has no list of decoder layers: its memory cannot be bounded")
    return base


def checkpoint_layers(model: Any, *, offload: bool, dtype: torch.dtype | None = None) -> None:
    """Keep the input of each decoder layer, and compute the layer again in the backward pass. Sets train mode.

    offload: the inputs wait in pinned host memory, copied beside the computation. Host bytes are
        layers x tokens x hidden size x bytes of a number, each input rounded up to a power of two by torch's allocator
        of pinned memory. Tensors on a CPU stay where they are.
    dtype: what a layer computes in, if not in its weights' dtype: its weights are converted each time it runs, so that
        float32 weights need no second copy. Its results are those of a model loaded in `dtype`.
    Raises ValueError for an architecture whose layers transformers cannot checkpoint.
    """
    base = decoder(model)
    host = _HostMemory() if offload else None
    for layer in base.layers:
        if not hasattr(layer, "gradient_checkpointing"):
            raise ValueError(f"{type(layer).__name__} cannot be checkpointed")
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = _again(layer, host, dtype)
    # The final norm converts all hidden states to float32, and would keep them until the backward pass has begun.
    norm, whole = _again(base.norm, host, dtype), base.norm.forward
    base.norm.forward = lambda hidden: norm(whole, hidden)
    if dtype is not None:
        model.get_input_embeddings().register_forward_hook(lambda module, args, embedded: embedded.to(dtype))
    model.train()


def accumulate_in_float32(model: nn.Module) -> None:
    """Sum gradients in float32 whatever the weights' dtype, so that a batch of many traces loses no small ones.

    The gradients then take 4 bytes a parameter.
    """
    for parameter in model.parameters():
        parameter.grad_dtype = torch.promote_types(parameter.dtype, torch.float32)


def call_with(module: nn.Module, parameters: dict[str, Tensor], run: Callable[..., Any], *args: Any) -> Any:
    """``run(*args)`` while `parameters`, named as in `module`, stand in the places of its own."""
    values = {f"module.{name}": value for name, value in parameters.items()}
    return functional_call(_Bound(module, run), values, args)


class _Bound(nn.Module):
    def __init__(self, module: nn.Module, run: Callable[..., Any]):
        super().__init__()
        self.module, self.run = module, run

    def forward(self, *args: Any) -> Any:
        return self.run(*args)


def _again(module: nn.Module, host: _HostMemory | None, dtype: torch.dtype | None) -> Callable[..., Any]:
    """Run a function of `module` now, keeping its inputs alone, and again in the backward pass."""

    def converted(run: Callable[..., Any], *inputs: Any) -> Any:
        if dtype is None:
            return run(*inputs)
        return call_with(module, {name: p.to(dtype) for name, p in module.named_parameters()}, run, *inputs)

    def checkpointed(run: Callable[..., Any], *inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return converted(run, *inputs)
        if host is None:
            return checkpoint(converted, run, *inputs, use_reentrant=False)
        # These hooks see what `checkpoint` keeps; inside, its own hooks take their place.
        with torch.autograd.graph.saved_tensors_hooks(host.pack, host.unpack):
            return checkpoint(converted, run, *inputs, use_reentrant=False)

    return checkpointed


@dataclass(eq=False)
class _Saved:
    host: Tensor
    device: torch.device
    before: Callable[[], _Saved | None]
    back: Tensor | None = None


class _HostMemory:
    """Saved tensors on the host. On a GPU the copies run on a stream of their own: out while the layer computes, back
    while the layer behind it does."""

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream() if torch.cuda.is_available() else None
        self.last: Callable[[], _Saved | None] = lambda: None

    def pack(self, x: Tensor) -> Tensor | _Saved:
        if x.device.type == "cpu":
            return x
        saved = _Saved(torch.empty_like(x, device="cpu", pin_memory=self.stream is not None), x.device, self.last)
        self._copy(saved.host, x)
        if self.stream is not None:
            x.record_stream(self.stream)  # x may be freed before the copy has run
        self.last = weakref.ref(saved)
        return saved

    def unpack(self, saved: Tensor | _Saved) -> Tensor:
        if isinstance(saved, Tensor):
            return saved
        self._fetch(saved)
        if self.stream is not None:
            torch.cuda.current_stream().wait_stream(self.stream)
        if before := saved.before():  # the backward pass will want it next
            self._fetch(before)
        back, saved.back = saved.back, None
        assert back is not None
        return back

    def _fetch(self, saved: _Saved) -> None:
        if saved.back is None:
            saved.back = torch.empty_like(saved.host, device=saved.device)
            self._copy(saved.back, saved.host)

    def _copy(self, to: Tensor, x: Tensor) -> None:
        if self.stream is None:
            to.copy_(x)
            return
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            to.copy_(x, non_blocking=True)
