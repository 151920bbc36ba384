"""The torch operator behind ``soft_label_ce``, and its derivative.

With row weights, the loss is one number. Its gradients are computed with it and kept for ``backward``, which multiplies
them by the incoming gradient. Without weights, the incoming gradients are the weights of another sweep.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..backends import fastest, implementation
from ..linear_probe_stats.head import LmHead
from .checks import check_label_values
from .gradients import Gradients


def losses(
    hidden_NH: Tensor, head: LmHead, ids_NK: Tensor, probs_NK: Tensor, weight_N: Tensor | None, z_loss: float,
    backend: str | None,
) -> Tensor:  # fmt: skip
    """Each row's loss [N] without weights, their weighted sum [] with them; differentiable."""
    dtype = loss_dtype(hidden_NH)
    parameters = (hidden_NH, head.weight_VH, head.bias_V)
    at_once = weight_N is not None and torch.is_grad_enabled()
    required = [at_once and x is not None and x.requires_grad for x in parameters]
    return _losses_and_gradients(
        *parameters, [head.scale, head.softcap or 0.0], ids_NK.to(torch.int64), probs_NK.to(dtype),
        None if weight_N is None else weight_N.to(dtype), z_loss, required, backend or "",
    )[0]  # fmt: skip


@torch.library.custom_op("ssdfast::soft_label_ce", mutates_args=())
def _losses_and_gradients(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, scale_and_softcap: list[float], ids: Tensor, probs: Tensor,
    row_weight: Tensor | None, z_loss: float, required: list[bool], backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The losses, then the gradients of their weighted sum in ``hidden``, ``weight`` and ``bias``.

    A gradient that is not required is an empty tensor [0].
    """
    check_label_values(ids, probs, weight.shape[0])
    module = implementation("soft_label_ce", backend or fastest(hidden), hidden.dtype)
    scale, softcap = scale_and_softcap
    head = LmHead(weight.detach(), None if bias is None else bias.detach(), scale, softcap or None)
    gradients = Gradients.zeros(hidden, head, required)
    with torch.autocast(hidden.device.type, enabled=False), torch.no_grad():  # nothing is rounded to 16 bits
        loss_N = module.losses_and_gradients(hidden.detach(), head, ids, probs, row_weight, z_loss, gradients)
        loss = loss_N if row_weight is None else _weighted_sum(loss_N, row_weight)
    grad_hidden, grad_weight, grad_bias = gradients.cast(hidden, weight, bias)
    return loss, grad_hidden, grad_weight, grad_bias


def _weighted_sum(loss_N: Tensor, weight_N: Tensor) -> Tensor:
    return torch.where(weight_N == 0, 0.0, loss_N * weight_N).sum()


@_losses_and_gradients.register_fake
def _(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, scale_and_softcap: list[float], ids: Tensor, probs: Tensor,
    row_weight: Tensor | None, z_loss: float, required: list[bool], backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    loss = hidden.new_empty(() if row_weight is not None else hidden.shape[:1], dtype=loss_dtype(hidden))
    grad_hidden, grad_weight, grad_bias = (
        torch.empty_like(parameter, memory_format=torch.contiguous_format)
        if needed and parameter is not None
        else hidden.new_empty(0)
        for parameter, needed in zip((hidden, weight, bias), required, strict=True)
    )
    return loss, grad_hidden, grad_weight, grad_bias


def _setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
    hidden, weight, bias, ctx.scale_and_softcap, ids, probs, row_weight, ctx.z_loss, required, ctx.backend = inputs
    ctx.set_materialize_grads(False)  # otherwise the gradients, which are outputs too, would get zeros of their size
    ctx.save_for_backward(hidden, weight, bias, ids, probs, row_weight)
    # Detached, because an output that its own node holds would never be freed.
    ctx.ready = [gradient.detach() if needed else None for gradient, needed in zip(output[1:], required, strict=True)]
    if not any(required):
        ctx.ready = None


def _backward(ctx: Any, incoming: Tensor | None, *_: None) -> tuple:
    if torch.is_grad_enabled():
        raise RuntimeError("soft_label_ce has no second derivative: call backward without create_graph=True")
    gradients: list[Tensor | None] = [None, None, None]
    if incoming is not None:
        ready, ctx.ready = ctx.ready, None
        if ready is not None:
            gradients = [None if gradient is None else gradient.mul_(incoming) for gradient in ready]
        else:
            gradients = _recomputed(ctx, incoming)
    return *gradients, *[None] * 7  # one for each argument


def _recomputed(ctx: Any, incoming: Tensor) -> list[Tensor | None]:
    """The gradients by another sweep."""
    hidden, weight, bias, ids, probs, row_weight = ctx.saved_tensors
    row_weight = incoming.contiguous() if row_weight is None else row_weight * incoming
    required = list(ctx.needs_input_grad[:3])
    _, *gradients = _losses_and_gradients(
        hidden, weight, bias, ctx.scale_and_softcap, ids, probs, row_weight, ctx.z_loss, required, ctx.backend
    )
    return [gradient if needed else None for gradient, needed in zip(gradients, required, strict=True)]


_losses_and_gradients.register_autograd(_backward, setup_context=_setup_context)


def loss_dtype(hidden: Tensor) -> torch.dtype:
    """The dtype of losses, labels and weights."""
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32
