"""The second read of the vocabulary: divergences with the normalisers known.

A program takes a part of a row, as in ``triton_first_sweep``: nothing crosses threads before it ends. A row takes one
of two forms, by its pivot (``triton_rows.choose_pivot``):

- direct, where the models differ much: from 2^d alone. A term may be wrong by 3e-7 p, whatever its size.
- exact, where the pivot is the ratio of the normalisers: every term keeps its relative accuracy however small d is, by
  polynomials for |d| < 1/2, selected against the direct terms. A KL of 1e-7 is right.

-inf and overflow leave a sum that is not finite, as does a row whose maxima are more than 16 apart, of which
differences would be rounded: ``second_sweep_exact`` computes such a part again.

Legend: a is the baseline, b the trained model; d = log p_b - log p_a; w = e^d - 1; g = w - d. Everything is weighted
with 2^64 p_a, so that p_b = p_a e^d is right where p_a alone would be 0 in float32.
"""

import triton
import triton.language as tl

from .triton_math import DIVERGENCES, GAP, GAP_SQUARED, JS, KL_AB, KL_BA, LN2, LOG2E, TV
from .triton_rows import LOG_SUM, ROW_MAX, ROW_SLOTS
from .triton_threads import T
from .triton_vectors import PAD, SCALE, aligned_words, exp2, lead_of, log2, times_minus, unpack

SAME_RATIO = tl.constexpr(4e-6)  # from here on a pivot is not the ratio
FARTHEST_MAXIMA = tl.constexpr(16.0)
FARTHEST_KL = tl.constexpr(0.25)  # of the trained model from the baseline, in one part
WEIGHT = tl.constexpr(64)  # log2 of what probabilities are multiplied with


@triton.jit
def second_sweep(
    a_ptr, b_ptr, row_a_ptr, row_b_ptr, pivot_ptr, state_ptr, vocab, parts, chunks, stride_a, stride_b,
    STEPS: tl.constexpr, PTX: tl.constexpr,
):  # fmt: skip
    """Partial divergences of a part of one row: state_ptr float32 [N, DIVERGENCES, parts].

    row_*_ptr: ``triton_rows``. The moments of x_b - x_a do not depend on a constant, and rounding is smallest where it
    is near their mean: they are taken about pivot_ptr, float32 [N].
    """
    ELEMENT: tl.constexpr = a_ptr.dtype.element_ty
    H: tl.constexpr = 4 // (ELEMENT.primitive_bitwidth // 8)
    CHUNK: tl.constexpr = STEPS * T * 4 * H
    row = (tl.program_id(0) // parts).to(tl.int64)
    part = tl.program_id(0) % parts
    a_ptr += row * stride_a
    b_ptr += row * stride_b
    row_a_ptr += row * ROW_SLOTS
    row_b_ptr += row * ROW_SLOTS
    max_a, log_sum_a = tl.load(row_a_ptr + ROW_MAX), tl.load(row_a_ptr + LOG_SUM)
    max_b, log_sum_b = tl.load(row_b_ptr + ROW_MAX), tl.load(row_b_ptr + LOG_SUM)
    pivot = tl.load(pivot_ptr + row)
    ratio = log_sum_b - log_sum_a
    between = max_b - max_a
    state_ptr += row * DIVERGENCES * parts + part
    if not (tl.abs(between) <= FARTHEST_MAXIMA):  # true of NaN
        tl.store(state_ptr + KL_AB * parts, float("nan"))
        return
    unrounded = (max_a.to(tl.float64) + log_sum_a.to(tl.float64)) * SCALE - WEIGHT
    c = unrounded.to(tl.float32)
    unweighted = tl.exp2((c - unrounded).to(tl.float32) - WEIGHT)

    lead = lead_of(a_ptr)
    first = part * chunks
    end = tl.minimum(first + chunks, (lead + vocab + CHUNK - 1) // CHUNK)
    whole_first = tl.minimum(first + ((first == 0) & (lead > 0)).to(tl.int32), end)
    whole_end = tl.maximum(tl.minimum(end, (lead + vocab) // CHUNK), whole_first)
    if lead_of(b_ptr) != lead:
        whole_first, whole_end = end, end
    before = tl.maximum(whole_first - first, 0)
    words = tl.arange(0, T)[:, None] * 4 + tl.arange(0, 4)[None, :]
    place = tl.arange(0, T)[:, None] * (4 * H) + tl.arange(0, 4)[None, :] * H
    a_place = aligned_words(a_ptr) + whole_first * (CHUNK // H)
    b_place = aligned_words(b_ptr) + whole_first * (CHUNK // H)
    zero = tl.zeros([T, 4], tl.float32)
    sums = (zero, zero, zero, zero, zero, zero)
    if tl.abs(pivot - ratio) < SAME_RATIO:
        offset = between + pivot
        for _ in range(whole_first, whole_end):
            for step in tl.static_range(STEPS):
                a_w, b_w = tl.load(a_place + words + step * (T * 4)), tl.load(b_place + words + step * (T * 4))
                for half in tl.static_range(H):
                    sums = _exact(sums, unpack(a_w, half, ELEMENT), unpack(b_w, half, ELEMENT), c, offset, PTX)
            a_place += CHUNK // H
            b_place += CHUNK // H
        for step in range((before + end - whole_end) * STEPS * H):
            z_a, z_b = _ragged(a_ptr, b_ptr, place, step, first, before, whole_end, lead, vocab, CHUNK, STEPS * H, H)
            sums = _exact(sums, z_a, z_b, c, offset, PTX)
        js, tv, first_moment, second_moment, kl_ab, kl_ba = sums
        tl.store(state_ptr + KL_AB * parts, tl.sum(kl_ab) * unweighted)
        tl.store(state_ptr + KL_BA * parts, tl.sum(kl_ba) * unweighted)
        tl.store(state_ptr + JS * parts, tl.sum(js) * unweighted * 0.5)
    else:
        offset = between + pivot
        ratio2 = (ratio - pivot) * SCALE
        for _ in range(whole_first, whole_end):
            for step in tl.static_range(STEPS):
                a_w, b_w = tl.load(a_place + words + step * (T * 4)), tl.load(b_place + words + step * (T * 4))
                for half in tl.static_range(H):
                    sums = _direct(sums, unpack(a_w, half, ELEMENT), unpack(b_w, half, ELEMENT), c, offset, ratio2, PTX)
            a_place += CHUNK // H
            b_place += CHUNK // H
        for step in range((before + end - whole_end) * STEPS * H):
            z_a, z_b = _ragged(a_ptr, b_ptr, place, step, first, before, whole_end, lead, vocab, CHUNK, STEPS * H, H)
            sums = _direct(sums, z_a, z_b, c, offset, ratio2, PTX)
        js, tv, first_moment, second_moment, mass, kl_ba = sums
        # Over the whole vocabulary these are divergences; a part's may have any sign.
        kl_ab_sum = tl.sum(mass) * (ratio - pivot) - tl.sum(first_moment)
        kl_ba_sum = tl.sum(kl_ba) * LN2
        # Far from p_a, the exponent of p_b is a sum of two large ones, and rounds: left to ``second_sweep_exact``.
        is_far = kl_ba_sum * unweighted > FARTHEST_KL
        tl.store(state_ptr + KL_AB * parts, tl.where(is_far, float("nan"), kl_ab_sum * unweighted))
        tl.store(state_ptr + KL_BA * parts, kl_ba_sum * unweighted)
        tl.store(state_ptr + JS * parts, (kl_ba_sum - tl.sum(js) * LN2) * unweighted * 0.5)
    tl.store(state_ptr + TV * parts, tl.sum(tv) * unweighted * 0.5)
    tl.store(state_ptr + GAP * parts, tl.sum(first_moment) * unweighted)
    tl.store(state_ptr + GAP_SQUARED * parts, tl.sum(second_moment) * unweighted)


@triton.jit
def _ragged(
    a_ptr, b_ptr, place, step, first, before, whole_end, lead, vocab, CHUNK: tl.constexpr, BLOCKS: tl.constexpr,
    H: tl.constexpr,
):  # fmt: skip
    """One block [T, 4] of a chunk that reaches beyond the row, with pads there."""
    index = step // BLOCKS
    chunk = tl.where(index < before, first + index, whole_end + index - before)
    ids = chunk * CHUNK + place + (step % BLOCKS) // H * (CHUNK // BLOCKS * H) + step % H - lead
    live = (ids >= 0) & (ids < vocab)
    z_a = tl.load(a_ptr + ids, mask=live, other=0.0).to(tl.float32)
    z_b = tl.load(b_ptr + ids, mask=live, other=0.0).to(tl.float32)
    return tl.where(live, z_a, PAD), tl.where(live, z_b, PAD)


@triton.jit
def _direct(sums, z_a, z_b, c, offset, ratio2, PTX: tl.constexpr):
    """Sums of (p_a + p_b) log2((1 + e^d) / 2), |p_b - p_a|, the two moments, p_a, and p_b d in log2 units."""
    js, tv, first_moment, second_moment, mass, kl_ba = sums
    p_a = exp2(times_minus(z_a, SCALE, c), PTX)
    gap = (z_b - z_a) - offset
    d2 = times_minus(gap, SCALE, ratio2)
    r = exp2(d2, PTX)
    p_b = p_a * r
    weighted = p_a * gap
    return (
        js + (p_a + p_b) * log2(r * 0.5 + 0.5, PTX), tv + p_a * tl.abs(r - 1.0), first_moment + weighted,
        second_moment + weighted * gap, mass + p_a, kl_ba + p_b * d2,
    )  # fmt: skip


@triton.jit
def _exact(sums, z_a, z_b, c, offset, PTX: tl.constexpr):
    """Sums of twice the terms of JS and of TV, of the moments of d, and of the terms of both KL, in nats.

    The polynomials are least squares of the relative error on |d| < 1/2: of (e^d - 1 - d) / d², to 8e-7, and of
    ((1 + w) d - (2 + w) log(1 + w / 2)) / d², to 1.4e-6.
    """
    js, tv, first_moment, second_moment, kl_ab, kl_ba = sums
    p_a = exp2(times_minus(z_a, SCALE, c), PTX)
    d = (z_b - z_a) - offset
    r = exp2(d * LOG2E, PTX)
    near = tl.abs(d) < 0.5
    square = d * d
    q = 0.49999994 + d * (0.16666281 + d * (0.04166786 + d * (0.008395348 + d * 0.0013899126)))
    g = tl.where(near, square * q, (r - 1.0) - d)
    w = d + g
    q = 0.24999993 + d * (0.12499668 + d * (0.03125193 + d * (0.005262211 + d * 0.0008653925)))
    far = (d + w * d) - (2.0 + w) * (log2(w * 0.5 + 1.0, PTX) * LN2)
    return (
        js + p_a * tl.where(near, square * q, far), tv + p_a * tl.abs(w), first_moment + p_a * d,
        second_moment + p_a * square, kl_ab + p_a * g, kl_ba + p_a * (d * w - g),
    )  # fmt: skip
