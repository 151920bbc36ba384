"""Cross-entropy with sparse soft labels, fused with the head: the logits of all positions never exist at once.

    from ssdfast.kernels import soft_label_ce
    loss = soft_label_ce(hidden, model.lm_head.weight, label_ids, label_probs, reduction="mean")
    loss.backward()

Backends: ``reference`` (plain torch, anywhere, float64), ``cpu`` (C++), ``triton`` (GPU).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import with_backends
from ..linear_probe_stats.head import LmHead
from .checks import check_labels, check_loss
from .operator import loss_dtype, losses

__all__ = ["soft_label_ce"]


@with_backends
def soft_label_ce(
    hidden_NH: Tensor,
    lm_head_VH: Tensor | LmHead,
    label_ids_NK: Tensor,
    label_probs_NK: Tensor,
    *,
    weight_N: Tensor | None = None,
    reduction: str = "none",
    z_loss: float = 0.0,
    backend: str | None = None,
) -> Tensor:
    """Cross-entropy in nats of N positions' predictions to labels q of at most K tokens each; differentiable.

        loss_n = mass_n * lse_n - sum_k q_nk * z_n[id_nk] + z_loss * lse_n²      mass_n = sum_k q_nk
        d loss_n / d z_n = (mass_n + 2 * z_loss * lse_n) * softmax(z_n) - q_n

    where z are the float32 logits and lse their log-sum-exp. With K = 1 and q = 1 it is ``F.cross_entropy``. With q the
    distribution that a frozen model samples from, it is the soft loss of simple self-distillation: the expectation of
    the sampled one.

    hidden_NH: [N, H], bf16, fp16 or fp32 (fp64 with the reference).
    lm_head_VH: the weight [V, H] in the hidden states' dtype, or an ``LmHead`` with bias, scale and soft-cap.
    label_ids_NK: integer [N, K], -1 for an empty slot; the probabilities of an id that is in a row twice add up.
    label_probs_NK: floating [N, K], >= 0, 0 in an empty slot; a row need not sum to 1. A row of zeros is ignored: its
        loss and its gradients are exactly 0, even if its hidden state holds NaN, and it takes no time.
    weight_N: floating [N], a factor for each loss; a row of weight 0 is ignored too.
    reduction: "none" gives [N]. "sum" and "mean" give one number; the mean is over the rows with labels, 0 without any.
        A reduced loss is the fast one: its gradients are computed with it, in one sweep over the logits. With "none"
        they depend on the use of the losses, so ``backward`` computes the logits again, which is a third slower. For
        another mean, such as one across devices, use "sum" and put 1 / count into the weights.
    z_loss: the coefficient of lse², which keeps logits small (PaLM, arXiv 2204.02311); 0 leaves it out.
    backend: a name from ``backends()``, or None for the fastest on the tensors' device.
    Returns float32 (float64 for float64). Gradients flow to those of hidden states, head weight and head bias that
    require one; nothing is computed for frozen ones. A gradient has the dtype of its tensor; the head's are summed in
    float32. None flows to labels and weights, and there is no second derivative. A second ``backward`` through one loss
    computes its gradients again.
    Memory: the gradients, float32 sums for those of a 16-bit head, and a chunk of logits, whatever N is: below 128 MB
    on a CPU, 512 MB on a GPU, or what SSDFAST_GPU_WORKSPACE_MB says. ``reference`` holds all logits.
    Raises ValueError for shapes, dtypes or devices that do not match, an id outside the vocabulary, a probability that
    is negative or not finite, labels or weights that require a gradient, or an unknown backend, and RuntimeError for a
    backend that cannot run here.
    """
    head = LmHead.from_weight(lm_head_VH)
    check_labels(hidden_NH, head, label_ids_NK, label_probs_NK)
    check_loss(hidden_NH, weight_N, reduction, z_loss)
    if reduction != "none":
        dtype = loss_dtype(hidden_NH)
        weight_N = hidden_NH.new_ones(hidden_NH.shape[0], dtype=dtype) if weight_N is None else weight_N.to(dtype)
        if reduction == "mean":
            weight_N = weight_N / (label_probs_NK > 0).any(1).sum().clamp(min=1)
        return losses(hidden_NH, head, label_ids_NK, label_probs_NK, weight_N, z_loss, backend)
    loss_N = losses(hidden_NH, head, label_ids_NK, label_probs_NK, None, z_loss, backend)
    return loss_N if weight_N is None else torch.where(weight_N == 0, 0.0, loss_N * weight_N)
