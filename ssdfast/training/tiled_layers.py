"""Parts of a decoder layer computed over tiles of the sequence, forward and backward.

The whole output is computed tile by tile without a graph. Backward computes each tile again, the last one first, with
its graph alone, and adds up the gradients of the weights in float32. What a tile hands on to the next (the state of a
linear attention) flows backward from tile to tile.

Shape legend: B sequences, L tokens, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .activation_checkpointing import call_with, decoder

# (module, a tile [B, l, H], *what the tile before handed on) to (output [B, l, H], *what is handed on)
Run = Callable[..., tuple[Tensor, ...]]


def tile_mlps(model: nn.Module, tokens: int) -> None:
    """Compute the MLP of each decoder layer over tiles of that many tokens of each sequence.

    The intermediate, tokens x intermediate size, then exists for one tile; bytes beside it are 4 a weight of one MLP.
    For layers with an `mlp` that maps each token by itself to a tensor of the same shape. Raises ValueError for others.
    """
    for layer in decoder(model).layers:
        if not hasattr(layer, "mlp"):
            raise ValueError(f"{type(layer).__name__} has no MLP to tile")
        _tile(layer.mlp, tokens, lambda whole: lambda hidden_BlH: (whole(hidden_BlH),))


def tile_norms(model: nn.Module, tokens: int) -> None:
    """Compute norms, each layer's and the last, over tiles of that many tokens: they convert what they are given to
    float32, and keep and make several copies of it."""
    base = decoder(model)
    of_layers = [
        module
        for layer in base.layers
        for name, module in layer.named_modules()
        if type(module).__name__.endswith("Norm") and not name.startswith("linear_attn")  # which is tiled itself
    ]
    for norm in (*of_layers, base.norm):
        _tile(norm, tokens, lambda whole: lambda hidden_BlH: (whole(hidden_BlH),))


def tile_linear_attention(model: nn.Module, tokens: int) -> None:
    """Compute gated delta nets (`linear_attn`) over tiles of that many tokens, a multiple of 64, where there are any.

    Where flash-linear-attention is not installed, transformers' own delta rule keeps about 0.4 MB a token of one layer.
    Raises ValueError for another number of tokens: chunks of 64 are how the delta rule is computed.
    """
    found = [layer.linear_attn for layer in decoder(model).layers if hasattr(layer, "linear_attn")]
    if found and tokens % 64:
        raise ValueError(f"a tile of linear attention is a multiple of 64 tokens, got {tokens}")
    for linear_attn in found:
        _tile(linear_attn, tokens, _carrying)


def _carrying(whole: Callable[..., Tensor]) -> Run:
    def run(hidden_BlH: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        carry = _Carry(*states)
        output_BlH = whole(hidden_BlH, cache_params=carry)
        return output_BlH, carry.conv, carry.recurrent

    return run


class _Carry:
    """What a gated delta net asks of a cache, for one layer, and without writing in place, which autograd forbids."""

    def __init__(self, conv: Any = None, recurrent: Any = None):
        self.conv, self.recurrent = conv, recurrent

    def get_conv_state(self, layer: int, **kwargs: Any) -> Tensor | None:
        return self.conv

    def get_recurrent_state(self, layer: int, **kwargs: Any) -> Tensor | None:
        return self.recurrent

    def is_recording_past(self, layer: int) -> bool:
        return False

    def update_conv_state(self, mixed: Tensor, layer: int, conv_kernel_size: int, **kwargs: Any) -> Tensor:
        if self.conv is None:
            before = mixed.new_zeros(*mixed.shape[:-1], conv_kernel_size - 1)  # as the convolution's own padding
            self.conv = torch.cat([before, mixed], -1)[..., 1 - conv_kernel_size :]
            return mixed
        both = torch.cat([self.conv, mixed], -1)
        self.conv = both[..., 1 - conv_kernel_size :].clone()
        return both

    def update_recurrent_state(self, state: Tensor, layer: int, **kwargs: Any) -> Tensor:
        self.recurrent = state
        return state


def _tile(module: nn.Module, tokens: int, tiled: Callable[[Callable[..., Tensor]], Run]) -> None:
    whole = module.forward
    run = tiled(whole)

    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if hidden_states.shape[1] <= tokens:
            return whole(hidden_states, *args, **kwargs)
        if any(isinstance(x, Tensor) for x in (*args, *kwargs.values())) or kwargs.get("cache_params") is not None:
            raise ValueError(f"{type(module).__name__} cannot be tiled with a mask or a cache: leave padding out")
        names, parameters = zip(*module.named_parameters(), strict=True)
        kept = _Keep.apply(hidden_states, *parameters)
        return _Tiles.apply(kept, kept.grad_fn, module, names, run, tokens, *parameters)

    module.forward = forward


class _Keep(torch.autograd.Function):
    """Saves for `_Tiles`, but before it has computed anything: a checkpoint that computes a layer again stops at the
    last tensor it saved, and so spares the MLP that ends the layer, which `_Tiles` will compute again itself."""

    @staticmethod
    def forward(ctx: Any, hidden_BLH: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(hidden_BLH, *parameters)
        return hidden_BLH.view_as(hidden_BLH)

    @staticmethod
    def backward(ctx: Any, *flows_in: Tensor) -> Any:
        return (*flows_in, *[None] * (len(ctx.needs_input_grad) - 1))


class _Tiles(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_BLH: Tensor, keep: Any, module: nn.Module, names: tuple[str, ...], run: Run, tokens: int,
        *parameters: Tensor,
    ) -> Tensor:  # fmt: skip
        ctx.keep, ctx.module, ctx.names, ctx.run, ctx.tokens = keep, module, names, run, tokens
        output_BLH = torch.empty_like(hidden_BLH)
        carries: list[tuple[Tensor, ...]] = [()]
        for span in _spans(hidden_BLH, tokens):
            output_BLH[:, span], *carry = run(hidden_BLH[:, span], *carries[-1])
            carries.append(tuple(carry))
        if carries[-1]:
            ctx.save_for_backward(*(state for carry in carries[:-1] for state in carry))
        ctx.handed_on = len(carries[-1])
        return output_BLH

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, flows_in_BLH: Tensor) -> Any:
        hidden_BLH, *parameters = ctx.keep.saved_tensors
        states, n = ctx.saved_tensors if ctx.handed_on else (), ctx.handed_on
        carries = [(), *(states[i : i + n] for i in range(0, len(states), n or 1))]
        run = partial(call_with, ctx.module, dict(zip(ctx.names, parameters, strict=True)), ctx.run)
        wanted = [p for p in parameters if p.requires_grad]
        sums: list[Tensor] = []
        grad_BLH = torch.empty_like(hidden_BLH)
        flows_in_carry: tuple[Tensor, ...] = ()
        for i, span in reversed(list(enumerate(_spans(hidden_BLH, ctx.tokens)))):
            tile_BlH, *carry = (x.detach().requires_grad_() for x in (hidden_BLH[:, span], *(carries[i] if n else ())))
            with torch.enable_grad():
                outputs = run(tile_BlH, *carry)
            flows_in = (flows_in_BLH[:, span], *flows_in_carry)
            found = torch.autograd.grad(outputs[: len(flows_in)], (tile_BlH, *carry, *wanted), flows_in)
            del outputs
            grad_BLH[:, span], flows_in_carry = found[0], found[1 : 1 + len(carry)]
            _add(sums, found[1 + len(carry) :])
        of_parameters = iter(sums)
        return grad_BLH, *[None] * 5, *(next(of_parameters) if p.requires_grad else None for p in parameters)


def _add(sums: list[Tensor], found: tuple[Tensor, ...]) -> None:
    """In float32 at least; the first tile's gradients become the sums."""
    if not sums:
        sums.extend(x.to(torch.promote_types(x.dtype, torch.float32)) for x in found)
        return
    for total, x in zip(sums, found, strict=True):
        total.add_(x)


def _spans(hidden_BLH: Tensor, tokens: int) -> list[slice]:
    """A last token alone goes with those before it: a gated delta net would take it for a step of generation."""
    length = hidden_BLH.shape[1]
    starts = range(0, max(1, length - 1), tokens)
    return [slice(start, length if start == starts[-1] else start + tokens) for start in starts]
