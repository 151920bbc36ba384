"""The state of a thread in ``first_sweep``: its largest logit, and its sums relative to it.

Legend as in ``triton_first_sweep``.
"""

import triton
import triton.language as tl

from .triton_math import AHEAD, INF, MAX, POSSIBLE, SUM, WEIGHTED, power
from .triton_vectors import LOWEST_SURE, PAD, SCALE, exp2, times_minus

T = tl.constexpr(128)  # threads of a program, and groups of a part


@triton.jit
def start_state(z_token, RATES: tl.constexpr, H: tl.constexpr, ELEMENT: tl.constexpr):
    """A thread's state before its first token: maximum, rank count, sum of p, of p x, of each further rate."""
    zero = tl.zeros([T], tl.float32)
    sums = ()
    for _ in tl.static_range(RATES - 1):
        sums = sums + (zero,)
    return tl.full([T], PAD, tl.float32), tl.zeros([T, 4], tl.int32), zero, zero, sums


@triton.jit
def add_chunk(
    a, b, pair, a_z, b_z, a_top, b_top, a_rank, b_rank,
    SCALES: tl.constexpr, ROOT_OF: tl.constexpr, POWERS: tl.constexpr, MODELS: tl.constexpr, PTX: tl.constexpr,
):  # fmt: skip
    """A chunk's logits, tuples of [T, 4], added to the threads' states."""
    zero = tl.zeros(a_z[0].shape, tl.float32)
    a_max = tl.maximum(a[0], a_top)
    a_new = _zeros(zero, len(POWERS) + 1)
    if MODELS == 2:
        b_max = tl.maximum(b[0], b_top)
        b_new = _zeros(zero, len(POWERS) + 1)
        a_d, b_d, a_dd = zero, zero, zero
        for i in tl.static_range(len(a_z)):
            a_new, a_p, a_x = _add_logits(a_new, a_z[i], a_max, SCALES, ROOT_OF, POWERS, PTX)
            b_new, b_p, b_x = _add_logits(b_new, b_z[i], b_max, SCALES, ROOT_OF, POWERS, PTX)
            d = b_x - a_x
            weighted = a_p * d
            a_d += weighted
            a_dd += weighted * d
            b_d += b_p * d
        a_f, a_by = _rescale(a[0], a_max, SCALES, ROOT_OF[0], PTX)
        b_f, b_by = _rescale(b[0], b_max, SCALES, ROOT_OF[0], PTX)
        f_a, f_b = power(a_f[ROOT_OF[0]], POWERS[0]), power(b_f[ROOT_OF[0]], POWERS[0])
        move = b_by - a_by
        pair = (
            (pair[0] + move * a[2]) * f_a + tl.sum(a_d, axis=1),
            (pair[1] + move * b[2]) * f_b + tl.sum(b_d, axis=1),
            (pair[2] + move * (2 * pair[0] + move * a[2])) * f_a + tl.sum(a_dd, axis=1),
        )
        b = _merge(b, b_max, b_rank, b_new, b_f, b_by, ROOT_OF, POWERS)
    else:
        for i in tl.static_range(len(a_z)):
            a_new, _, _ = _add_logits(a_new, a_z[i], a_max, SCALES, ROOT_OF, POWERS, PTX)
        a_f, a_by = _rescale(a[0], a_max, SCALES, ROOT_OF[0], PTX)
    a = _merge(a, a_max, a_rank, a_new, a_f, a_by, ROOT_OF, POWERS)
    return a, b, pair


@triton.jit
def _zeros(zero, n: tl.constexpr):
    zeros = ()
    for _ in tl.static_range(n):
        zeros = zeros + (zero,)
    return zeros


@triton.jit
def _add_logits(sums, z, z_max, SCALES: tl.constexpr, ROOT_OF: tl.constexpr, POWERS: tl.constexpr, PTX: tl.constexpr):
    """Sums of p x, of p and of each further rate; returns them, p and x."""
    x = times_minus(z, SCALES[ROOT_OF[0]], (z_max * SCALES[ROOT_OF[0]])[:, None])
    roots = ()
    for r in tl.static_range(len(SCALES)):
        if r == ROOT_OF[0]:
            roots = roots + (exp2(x, PTX),)
        else:
            roots = roots + (exp2(times_minus(z, SCALES[r], (z_max * SCALES[r])[:, None]), PTX),)
    p = power(roots[ROOT_OF[0]], POWERS[0])
    out = (sums[0] + p * x, sums[1] + p)
    for j in tl.static_range(1, len(POWERS)):
        u = roots[ROOT_OF[j]]
        if POWERS[j] == 1:
            out = out + (sums[j + 1] + u,)
        else:  # the last product is fused with the sum
            out = out + (sums[j + 1] + power(u, (POWERS[j] + 1) // 2) * power(u, POWERS[j] // 2),)
    return out, p, x


@triton.jit
def _rescale(old_max, new_max, SCALES: tl.constexpr, FIRST: tl.constexpr, PTX: tl.constexpr):
    """2^(c - c') of each root, and c - c' of the first rate's."""
    factors = ()
    for r in tl.static_range(len(SCALES)):
        factors = factors + (exp2(old_max * SCALES[r] - new_max * SCALES[r], PTX),)
    return factors, old_max * SCALES[FIRST] - new_max * SCALES[FIRST]


@triton.jit
def _merge(old, z_max, rank, new, factors, by, ROOT_OF: tl.constexpr, POWERS: tl.constexpr):
    f = power(factors[ROOT_OF[0]], POWERS[0])
    sums = ()
    for j in tl.static_range(1, len(POWERS)):
        sums = sums + (old[4][j - 1] * power(factors[ROOT_OF[j]], POWERS[j]) + tl.sum(new[j + 1], axis=1),)
    weighted = (old[3] + old[2] * by) * f + tl.sum(new[0], axis=1)
    return z_max, rank, old[2] * f + tl.sum(new[1], axis=1), weighted, sums


@triton.jit
def finish_state(
    model, ahead, live_tokens, is_hard, state_ptr, parts, group_max_ptr, group_sum_ptr, SCALES: tl.constexpr,
    ROOT_OF: tl.constexpr, POWERS: tl.constexpr, PTX: tl.constexpr,
):  # fmt: skip
    """Stores one model's slots; returns what its sums are scaled by, and the shift of x, from threads to the part."""
    z_max, _, total, weighted, sums = model
    part_max = tl.max(z_max)
    f, by = _to_part(z_max, part_max, SCALES[ROOT_OF[0]], PTX)
    f = power(f, POWERS[0])
    tl.store(group_max_ptr, tl.where(z_max > LOWEST_SURE, z_max, -INF))
    tl.store(group_sum_ptr, total * f)
    tl.store(state_ptr + MAX * parts, tl.where(live_tokens > 0, part_max, -INF))
    tl.store(state_ptr + WEIGHTED * parts, tl.sum((weighted + total * by) * f) * (POWERS[0] / SCALE))
    tl.store(state_ptr + AHEAD * parts, ahead.to(tl.float32))
    tl.store(state_ptr + POSSIBLE * parts, live_tokens.to(tl.float32))
    tl.store(state_ptr + SUM * parts, tl.where(is_hard > 0, float("nan"), tl.sum(total * f)))
    for j in tl.static_range(1, len(POWERS)):
        factor, _ = _to_part(z_max, part_max, SCALES[ROOT_OF[j]], PTX)
        tl.store(state_ptr + (SUM + j) * parts, tl.sum(sums[j - 1] * power(factor, POWERS[j])))
    return f, by


@triton.jit
def _to_part(z_max, part_max, SCALE_R: tl.constexpr, PTX: tl.constexpr):
    """2^by and by = c - M SCALE_R, with c as it was rounded."""
    by = -times_minus(part_max + z_max * 0, SCALE_R, z_max * SCALE_R)
    return exp2(by, PTX), by
