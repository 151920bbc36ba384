"""The kernel: the loss of a row of logits with sparse labels and, in the logits' memory or beside it, its gradient.

A program passes over a row twice: for the maximum and sum of exponentials, lane by lane, and for the gradient. The
gradients of labelled tokens are computed again at the end: a softmax close to q that is rounded to bf16 before q is
subtracted would leave noise.
"""

import triton
import triton.language as tl

from ..probe_stats.triton_math import INF, LN2, LOG2E


@triton.jit
def slope(z, SCALE: tl.constexpr, SOFTCAP: tl.constexpr):
    """d logit / d product at a logit; 0 for a forbidden token, -inf."""
    if SOFTCAP == 0:
        return tl.full(z.shape, SCALE, tl.float32)
    t = tl.where(z > -INF, z, 0.0) / SOFTCAP
    return tl.where(z == -INF, 0.0, SCALE * (1 - t * t))


@triton.jit
def soft_label_rows(
    logits_ptr, grad_ptr, ids_ptr, probs_ptr, weight_ptr, loss_ptr, vocab, slots, stride_logits, stride_grad,
    Z_LOSS: tl.constexpr, SCALE: tl.constexpr, SOFTCAP: tl.constexpr, GRADIENT: tl.constexpr, KP: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The loss of row ``program_id(0)``; if GRADIENT, the gradient of weight * loss in the head's product.

    logits_ptr: float32 [B, V]. grad_ptr: the same memory, or bf16 [B, V]. ids_ptr, probs_ptr: int64, float32 [B, K],
    an empty slot of probability 0. weight_ptr, loss_ptr: float32 [B]. KP: a power of two, at least K = ``slots``.
    """
    row = tl.program_id(0).to(tl.int64)
    logits_ptr += row * stride_logits
    slot = tl.arange(0, KP)
    ids_ptr += row * slots
    probs_ptr += row * slots
    q = tl.load(probs_ptr + slot, mask=slot < slots, other=0.0)
    labelled = q > 0
    ids = tl.load(ids_ptr + slot, mask=labelled, other=0)
    z_label = tl.load(logits_ptr + ids, mask=labelled, other=0.0)
    mass = tl.sum(q)

    lane = tl.arange(0, BLOCK)
    lane_max = tl.full([BLOCK], -INF, tl.float32)
    lane_sum = tl.zeros([BLOCK], tl.float32)
    for start in range(0, vocab, BLOCK):
        z = tl.load(logits_ptr + start + lane, mask=start + lane < vocab, other=-INF)
        new_max = tl.maximum(lane_max, z)
        centre = tl.where(new_max > -INF, new_max, 0.0)
        lane_sum = lane_sum * tl.exp2((lane_max - centre) * LOG2E) + tl.exp2((z - centre) * LOG2E)
        lane_max = new_max
    row_max = tl.max(lane_max)
    centre = tl.where(row_max > -INF, row_max, 0.0)
    total = tl.sum(lane_sum * tl.exp2((lane_max - centre) * LOG2E))
    log_sum = tl.log2(total) * LN2
    lse = centre + log_sum
    loss = tl.sum(tl.where(labelled, q * (centre - z_label + log_sum), 0.0)) + Z_LOSS * lse * lse
    tl.store(loss_ptr + row, loss)

    if GRADIENT:
        grad_ptr += row * stride_grad
        weight = tl.load(weight_ptr + row)
        factor = weight * (mass + 2 * Z_LOSS * lse) / total
        for start in range(0, vocab, BLOCK):
            live = start + lane < vocab
            z = tl.load(logits_ptr + start + lane, mask=live, other=-INF)
            gradient = tl.exp2((z - centre) * LOG2E) * factor * slope(z, SCALE, SOFTCAP)
            tl.store(grad_ptr + start + lane, gradient.to(grad_ptr.dtype.element_ty), mask=live)
        of_token = tl.zeros([KP], tl.float32)  # q of all slots that name a slot's token
        for k in range(0, slots):
            of_token += tl.where(ids == tl.load(ids_ptr + k), tl.load(probs_ptr + k), 0.0)
        softmax = tl.exp2((z_label - centre) * LOG2E) * factor
        gradient = (softmax - weight * of_token) * slope(z_label, SCALE, SOFTCAP)
        tl.debug_barrier()  # another thread may have written the softmax there
        tl.store(grad_ptr + ids, gradient.to(grad_ptr.dtype.element_ty), mask=labelled)
