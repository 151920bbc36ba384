"""Parts of a decoder layer computed over tiles of the sequence, forward and backward.

The forward pass computes the output tile by tile without a graph. The backward pass computes each tile again, the last
one first, with the graph of that tile alone, and sums the gradients of the weights in float32. The state that a tile
passes to the next (of a linear attention) has its gradient passed back from tile to tile.

Shape legend: B sequences, L tokens, l tokens of a tile, H hidden size.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from .activation_checkpointing import call_with, decoder

_CACHE_ARGUMENTS = ("cache", "cache_params")  # the second until transformers 5.23
# from (a tile [B, l, H], *the state after the tile before it) to (output [B, l, H], *the state after this tile)
Run = Callable[..., tuple[Tensor, ...]]


def tile_mlps(model: nn.Module, tokens: int) -> None:
    """Compute the MLP of each decoder layer over tiles of that many tokens of each sequence.

    The intermediate, tokens x intermediate size, then exists for one tile. The sums of gradients take 4 bytes per
    weight of one MLP. It is for layers whose `mlp` maps each token separately to a tensor of the same shape. Raises
    ValueError for layers without an `mlp`.
    """
    for layer in decoder(model).layers:
        if not hasattr(layer, "mlp"):
            raise ValueError(f"{type(layer).__name__} has no MLP to tile")
        _tile(layer.mlp, tokens, _stateless)


def tile_norms(model: nn.Module, tokens: int) -> None:
    """Compute norms, each layer's and the last, over tiles of that many tokens: they convert their input to float32 and
    make several copies of it."""
    base = decoder(model)
    layer_norms = [
        module
        for layer in base.layers
        for name, module in layer.named_modules()
        if type(module).__name__.endswith("Norm") and not name.startswith("linear_attn")  # which is tiled itself
    ]
    for norm in (*layer_norms, base.norm):
        _tile(norm, tokens, _stateless)


def tile_linear_attention(model: nn.Module, tokens: int) -> None:
    """Compute gated delta nets (`linear_attn`) over tiles of that many tokens, a multiple of 64, where there are any.

    Where flash-linear-attention is not installed, transformers' own delta rule stores about 0.4 MB per token of one
    layer. Raises ValueError for another number of tokens: the delta rule is computed in chunks of 64.
    """
    delta_nets = [layer.linear_attn for layer in decoder(model).layers if hasattr(layer, "linear_attn")]
    if delta_nets and tokens % 64:
        raise ValueError(f"a tile of linear attention must be a multiple of 64 tokens, got {tokens}")
    for delta_net in delta_nets:
        _tile(delta_net, tokens, _with_state)


def _stateless(forward: Callable[..., Tensor]) -> Run:
    return lambda hidden_BlH: (forward(hidden_BlH),)


def _with_state(forward: Callable[..., Tensor]) -> Run:
    argument = next(name for name in _CACHE_ARGUMENTS if name in inspect.signature(forward).parameters)

    def run(hidden_BlH: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        cache = _StateCache(*states)
        output_BlH = forward(hidden_BlH, **{argument: cache})
        return output_BlH, cache.conv, cache.recurrent

    return run


class _StateCache:
    """The interface of a cache that a gated delta net calls, for one layer, without writes in place, which autograd
    forbids.

    transformers before 5.21 asks `has_previous_state` and reads `layers`; later ones ask for the states.
    """

    def __init__(self, conv: Any = None, recurrent: Any = None):
        self.conv, self.recurrent = conv, recurrent
        layer = SimpleNamespace(conv_states=[conv], recurrent_states=[recurrent], record_past=False)
        self.layers = defaultdict(lambda: layer)

    def has_previous_state(self, layer: int, **kwargs: Any) -> bool:
        return self.conv is not None

    def get_conv_state(self, layer: int, **kwargs: Any) -> Tensor | None:
        return self.conv

    def get_recurrent_state(self, layer: int, **kwargs: Any) -> Tensor | None:
        return self.recurrent

    def is_recording_past(self, layer: int) -> bool:
        return False

    def update_conv_state(self, mixed: Tensor, layer: int, conv_kernel_size: int, **kwargs: Any) -> Tensor:
        if self.conv is None:
            padding = mixed.new_zeros(*mixed.shape[:-1], conv_kernel_size - 1)  # as the convolution's own
            self.conv = torch.cat([padding, mixed], -1)[..., 1 - conv_kernel_size :]
            return mixed
        both = torch.cat([self.conv, mixed], -1)
        self.conv = both[..., 1 - conv_kernel_size :].clone()
        return both

    def update_recurrent_state(self, state: Tensor, layer: int, **kwargs: Any) -> Tensor:
        self.recurrent = state
        return state


def _tile(module: nn.Module, tokens: int, make_run: Callable[[Callable[..., Tensor]], Run]) -> None:
    untiled = module.forward
    run = make_run(untiled)

    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if hidden_states.shape[1] <= tokens:
            return untiled(hidden_states, *args, **kwargs)
        if any(isinstance(x, Tensor) for x in (*args, *kwargs.values())) or any(
            kwargs.get(name) is not None for name in _CACHE_ARGUMENTS
        ):
            raise ValueError(f"{type(module).__name__} cannot be tiled with a mask or a cache: use packed traces")
        names, parameters = zip(*module.named_parameters(), strict=True)
        saved = _SaveInputs.apply(hidden_states, *parameters)
        return _Tiles.apply(saved, saved.grad_fn, module, names, run, tokens, *parameters)

    module.forward = forward


class _SaveInputs(torch.autograd.Function):
    """Saves the inputs of `_Tiles` before it computes anything: a checkpoint that computes a layer again stops at the
    last tensor it saved, and so skips the MLP at the end of the layer, which `_Tiles` computes again itself."""

    @staticmethod
    def forward(ctx: Any, hidden_BLH: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(hidden_BLH, *parameters)
        return hidden_BLH.view_as(hidden_BLH)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        return (*grad_outputs, *[None] * (len(ctx.needs_input_grad) - 1))


class _Tiles(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_BLH: Tensor, inputs: Any, module: nn.Module, names: tuple[str, ...], run: Run, tokens: int,
        *parameters: Tensor,
    ) -> Tensor:  # fmt: skip
        ctx.inputs, ctx.module, ctx.names, ctx.run, ctx.tokens = inputs, module, names, run, tokens
        output_BLH = torch.empty_like(hidden_BLH)
        states: list[tuple[Tensor, ...]] = [()]
        for span in _spans(hidden_BLH, tokens):
            output_BLH[:, span], *state = run(hidden_BLH[:, span], *states[-1])
            states.append(tuple(state))
        if states[-1]:
            ctx.save_for_backward(*(x for state in states[:-1] for x in state))
        ctx.state_size = len(states[-1])
        return output_BLH

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output_BLH: Tensor) -> Any:
        hidden_BLH, *parameters = ctx.inputs.saved_tensors
        saved, n = ctx.saved_tensors if ctx.state_size else (), ctx.state_size
        states = [(), *(saved[i : i + n] for i in range(0, len(saved), n or 1))]
        run = partial(call_with, ctx.module, dict(zip(ctx.names, parameters, strict=True)), ctx.run)
        trained = [p for p in parameters if p.requires_grad]
        sums: list[Tensor] = []
        grad_BLH = torch.empty_like(hidden_BLH)
        grad_state: tuple[Tensor, ...] = ()
        for i, span in reversed(list(enumerate(_spans(hidden_BLH, ctx.tokens)))):
            tile_BlH, *state = (x.detach().requires_grad_() for x in (hidden_BLH[:, span], *(states[i] if n else ())))
            with torch.enable_grad():
                outputs = run(tile_BlH, *state)
            grad_outputs = (grad_output_BLH[:, span], *grad_state)
            grads = torch.autograd.grad(outputs[: len(grad_outputs)], (tile_BlH, *state, *trained), grad_outputs)
            del outputs
            grad_BLH[:, span], grad_state = grads[0], grads[1 : 1 + len(state)]
            _add(sums, grads[1 + len(state) :])
        parameter_grads = iter(sums)
        return grad_BLH, *[None] * 5, *(next(parameter_grads) if p.requires_grad else None for p in parameters)


def _add(sums: list[Tensor], grads: tuple[Tensor, ...]) -> None:
    """Adds gradients to the sums, in float32 or wider. The first tile's gradients become the sums."""
    if not sums:
        sums.extend(x.to(torch.promote_types(x.dtype, torch.float32)) for x in grads)
        return
    for total, x in zip(sums, grads, strict=True):
        total.add_(x)


def _spans(hidden_BLH: Tensor, tokens: int) -> list[slice]:
    """The tiles. A single last token joins the tile before it, or a gated delta net would take it for generation."""
    length = hidden_BLH.shape[1]
    starts = range(0, max(1, length - 1), tokens)
    return [slice(start, length if start == starts[-1] else start + tokens) for start in starts]
