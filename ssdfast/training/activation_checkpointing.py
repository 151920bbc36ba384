"""Activation checkpointing: the activations of one layer exist at a time, instead of those of all layers.

    checkpoint_layers(model, offload=True)    # stores only layer inputs, in host memory
    tile_mlps(model, 8192)                    # tiled_layers.py: an MLP's intermediate exists for 8,192 tokens at a time
    tile_linear_attention(model, 8192)        # the same for gated delta nets, and tile_norms for norms
    accumulate_in_float32(model)              # bf16 weights, float32 gradients

Each changes a loaded transformers model in place, alone or together with the others. None changes the results: losses
and gradients are those of the original model up to the order of sums, and ``save_pretrained`` writes the same files.
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
    """The part of a causal LM with `layers` and `norm`. Raises ValueError if there is none."""
    base: Any = getattr(model, "base_model", None)
    if not isinstance(getattr(base, "layers", None), nn.ModuleList) or not hasattr(base, "norm"):
        raise ValueError(
            f"{type(model).__name__} has no list of decoder layers: activation checkpointing and tiling need one"
        )
    return base


def checkpoint_layers(model: Any, *, offload: bool, dtype: torch.dtype | None = None) -> None:
    """Store only the input of each decoder layer, and compute the layer again in the backward pass. Sets train mode.

    offload: the inputs are copied to pinned host memory while the computation goes on. Host bytes are
        layers x tokens x hidden size x bytes per number, each input rounded up to a power of two by torch's allocator
        of pinned memory. Tensors on a CPU stay where they are.
    dtype: the dtype that a layer computes in, if not its weights': its weights are converted each time it runs, so that
        float32 weights need no second copy. The results are those of a model loaded in `dtype`.
    Raises ValueError for an architecture whose layers transformers cannot checkpoint.
    """
    base = decoder(model)
    offloader = _HostOffload() if offload else None
    for layer in base.layers:
        if not hasattr(layer, "gradient_checkpointing"):
            raise ValueError(f"{type(layer).__name__} cannot be checkpointed")
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = _checkpointed(layer, offloader, dtype)
    # The final norm converts all hidden states to float32, and would hold them until the backward pass starts.
    norm, norm_forward = _checkpointed(base.norm, offloader, dtype), base.norm.forward
    base.norm.forward = lambda hidden: norm(norm_forward, hidden)
    if dtype is not None:
        model.get_input_embeddings().register_forward_hook(lambda module, args, embedded: embedded.to(dtype))
    model.train()


def accumulate_in_float32(model: nn.Module) -> None:
    """Accumulate gradients in float32 whatever the weights' dtype, so that a batch of many traces loses no small ones.

    The gradients then take 4 bytes per parameter.
    """
    for parameter in model.parameters():
        parameter.grad_dtype = torch.promote_types(parameter.dtype, torch.float32)


def call_with(module: nn.Module, parameters: dict[str, Tensor], run: Callable[..., Any], *args: Any) -> Any:
    """``run(*args)`` while `parameters`, named as in `module`, replace its own."""
    values = {f"module.{name}": value for name, value in parameters.items()}
    return functional_call(_Bound(module, run), values, args)


class _Bound(nn.Module):
    def __init__(self, module: nn.Module, run: Callable[..., Any]):
        super().__init__()
        self.module, self.run = module, run

    def forward(self, *args: Any) -> Any:
        return self.run(*args)


def _checkpointed(module: nn.Module, offloader: _HostOffload | None, dtype: torch.dtype | None) -> Callable[..., Any]:
    """Runs a function of `module`, stores only its inputs, and runs it again in the backward pass."""

    def converted(run: Callable[..., Any], *inputs: Any) -> Any:
        if dtype is None:
            return run(*inputs)
        return call_with(module, {name: p.to(dtype) for name, p in module.named_parameters()}, run, *inputs)

    def checkpointed(run: Callable[..., Any], *inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return converted(run, *inputs)
        if offloader is None:
            return checkpoint(converted, run, *inputs, use_reentrant=False)
        # These hooks get the tensors that `checkpoint` stores; inside, its own hooks replace them.
        with torch.autograd.graph.saved_tensors_hooks(offloader.pack, offloader.unpack):
            return checkpoint(converted, run, *inputs, use_reentrant=False)

    return checkpointed


@dataclass(eq=False)
class _Offloaded:
    host: Tensor
    device: torch.device
    previous: Callable[[], _Offloaded | None]
    fetched: Tensor | None = None


class _HostOffload:
    """Saved tensors in host memory. On a GPU the copies run on a stream of their own: to the host while the layer
    computes, back while the next layer's backward pass runs."""

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream() if torch.cuda.is_available() else None
        self.last: Callable[[], _Offloaded | None] = lambda: None

    def pack(self, x: Tensor) -> Tensor | _Offloaded:
        if x.device.type == "cpu":
            return x
        saved = _Offloaded(torch.empty_like(x, device="cpu", pin_memory=self.stream is not None), x.device, self.last)
        self._copy(saved.host, x)
        if self.stream is not None:
            x.record_stream(self.stream)  # x may be freed before the copy has run
        self.last = weakref.ref(saved)
        return saved

    def unpack(self, saved: Tensor | _Offloaded) -> Tensor:
        if isinstance(saved, Tensor):
            return saved
        self._fetch(saved)
        if self.stream is not None:
            torch.cuda.current_stream().wait_stream(self.stream)
        if previous := saved.previous():  # the backward pass needs it next
            self._fetch(previous)
        fetched, saved.fetched = saved.fetched, None
        assert fetched is not None
        return fetched

    def _fetch(self, saved: _Offloaded) -> None:
        if saved.fetched is None:
            saved.fetched = torch.empty_like(saved.host, device=saved.device)
            self._copy(saved.fetched, saved.host)

    def _copy(self, target: Tensor, source: Tensor) -> None:
        if self.stream is None:
            target.copy_(source)
            return
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            target.copy_(source, non_blocking=True)
