"""The sweeps for parts of rows with -inf, NaN, or logits so far apart that float32 overflows: exact, and slower.

Each program looks whether the fast sweep has left NaN in its part, and ends where it has not. -inf marks a token that
cannot occur; NaN and +inf make the sums NaN, which marks an invalid row.

Legend as in ``triton_first_sweep`` and ``triton_second_sweep``.
"""

import triton
import triton.language as tl

from .triton_math import (
    A_D,
    A_DD,
    AHEAD,
    B_D,
    DIVERGENCES,
    GAP,
    GAP_SQUARED,
    INF,
    JS,
    KL_AB,
    KL_BA,
    LOG2E,
    MAX,
    POSSIBLE,
    SUM,
    TV,
    WEIGHTED,
    divergence_terms,
    finite_gap,
    finite_x,
)
from .triton_rows import LOG_SUM, ROW_MAX, ROW_SLOTS
from .triton_second_sweep import SAME_RATIO
from .triton_threads import T
from .triton_vectors import lead_of


@triton.jit(do_not_specialize=["n_rows"])
def first_sweep_exact(
    a_ptr, b_ptr, token_ptr, token_z_ptr, state_ptr, group_max_ptr, group_sum_ptr,
    n_rows, vocab, parts, chunks, stride_a, stride_b, slots, model_slots,
    RATES: tl.constexpr, MODELS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """``first_sweep`` of the parts in which it left NaN; the same arguments, with the rates themselves."""
    row = (tl.program_id(0) // parts).to(tl.int64)
    part = tl.program_id(0) % parts
    state_ptr += row * slots * parts + part
    model_end: tl.constexpr = SUM + 1
    is_sure = _is_finite(state_ptr, WEIGHTED, model_end, parts)
    if MODELS == 2:
        is_sure &= _is_finite(state_ptr + model_slots * parts, WEIGHTED, model_end, parts)
        is_sure &= _is_finite(state_ptr + 2 * model_slots * parts, A_D, A_DD + 1, parts)
    if is_sure:
        return
    token = tl.minimum(tl.load(token_ptr + row), vocab)  # ids beyond the vocabulary are never ahead of it
    a_ptr += row * stride_a
    group = (row * parts + part) * T + tl.arange(0, T)
    lead = lead_of(a_ptr)
    ids = _ids(a_ptr, part, chunks, lead, STEPS)
    steps = chunks * STEPS
    max_a = _model_exact(
        a_ptr, ids, steps, token, tl.load(token_z_ptr + row), state_ptr, group_max_ptr + group, group_sum_ptr + group,
        vocab, parts, RATES,
    )  # fmt: skip
    if MODELS == 2:
        group += n_rows.to(tl.int64) * parts * T
        b_ptr += row * stride_b
        max_b = _model_exact(
            b_ptr, ids, steps, token, tl.load(token_z_ptr + n_rows + row), state_ptr + model_slots * parts,
            group_max_ptr + group, group_sum_ptr + group, vocab, parts, RATES,
        )  # fmt: skip
        state_ptr += 2 * model_slots * parts
        a_d = tl.zeros(ids.shape, tl.float32)
        b_d, a_dd = a_d, a_d
        for step in range(steps):
            z_a, z_b = _logits(a_ptr, ids, step, vocab), _logits(b_ptr, ids, step, vocab)
            x_a, x_b = _below_max(z_a, max_a), _below_max(z_b, max_b)
            e_a, e_b = tl.exp2(x_a * LOG2E), tl.exp2(x_b * LOG2E)
            d = finite_x(x_b, z_b) - finite_x(x_a, z_a)  # infinite where one model allows the token, NaN where neither
            finite = finite_gap(d)
            a_d += tl.where(d == -INF, -INF, e_a * finite)
            b_d += tl.where(d == INF, -INF, e_b * finite)
            a_dd += e_a * finite * finite
        tl.store(state_ptr + A_D * parts, tl.sum(a_d))
        tl.store(state_ptr + B_D * parts, tl.sum(b_d))
        tl.store(state_ptr + A_DD * parts, tl.sum(a_dd))


@triton.jit
def _is_finite(ptr, FIRST: tl.constexpr, END: tl.constexpr, stride):
    """Whether some slots are all finite."""
    total = tl.load(ptr + FIRST * stride) * 0
    for slot in tl.static_range(FIRST + 1, END):
        total += tl.load(ptr + slot * stride) * 0
    return total == 0


@triton.jit
def _ids(row_ptr, part, chunks, lead, STEPS: tl.constexpr):
    """The ids [T, V] of each thread's first vector; later ones follow T * V tokens apart."""
    VECTOR: tl.constexpr = 16 // (row_ptr.dtype.element_ty.primitive_bitwidth // 8)
    own = tl.arange(0, T)[:, None] * VECTOR + tl.arange(0, VECTOR)[None, :]
    return part * (chunks * STEPS * T * VECTOR) + own - lead


@triton.jit
def _logits(row_ptr, ids, step, vocab):
    """float32 logits of each thread's vector ``step``, -inf beyond the row."""
    at = ids + step * (ids.shape[0] * ids.shape[1])
    return tl.load(row_ptr + at, mask=(at >= 0) & (at < vocab), other=-INF).to(tl.float32)


@triton.jit
def _below_max(z, largest):
    return z - tl.where(largest > -INF, largest, 0.0)


@triton.jit
def _model_exact(
    z_ptr, ids, steps, token, z_token, state_ptr, group_max_ptr, group_sum_ptr, vocab, parts, RATES: tl.constexpr
):
    """One model's slots; returns the largest logit of the part."""
    group_max = tl.full([T], -INF, tl.float32)
    for step in range(steps):
        group_max = tl.maximum(group_max, tl.max(_logits(z_ptr, ids, step, vocab), axis=1))
    part_max = tl.max(group_max)
    tl.store(group_max_ptr, group_max)
    tl.store(state_ptr + MAX * parts, part_max)
    zero = tl.zeros(ids.shape, tl.float32)
    sums = ()
    for _ in tl.static_range(len(RATES)):
        sums = sums + (zero,)
    weighted = zero
    ahead, possible = tl.zeros(ids.shape, tl.int32), tl.zeros(ids.shape, tl.int32)
    for step in range(steps):
        z = _logits(z_ptr, ids, step, vocab)
        at = ids + step * (ids.shape[0] * ids.shape[1])
        ahead += ((z > z_token) | ((z == z_token) & (at >= 0) & (at < token))).to(tl.int32)
        possible += (z > -INF).to(tl.int32)
        x = _below_max(z, part_max)
        e = tl.exp2(x * LOG2E)
        weighted += tl.where(x > -INF, e * x, 0.0)
        new = (sums[0] + e,)
        for j in tl.static_range(1, len(RATES)):
            new = new + (sums[j] + tl.exp2(x * (RATES[j] * LOG2E)),)
        sums = new
    tl.store(group_sum_ptr, tl.sum(sums[0], axis=1))
    tl.store(state_ptr + WEIGHTED * parts, tl.sum(weighted))
    tl.store(state_ptr + AHEAD * parts, tl.sum(ahead).to(tl.float32))
    tl.store(state_ptr + POSSIBLE * parts, tl.sum(possible).to(tl.float32))
    for j in tl.static_range(len(RATES)):
        tl.store(state_ptr + (SUM + j) * parts, tl.sum(sums[j]))
    return part_max


@triton.jit
def second_sweep_exact(
    a_ptr,
    b_ptr,
    row_a_ptr,
    row_b_ptr,
    pivot_ptr,
    state_ptr,
    vocab,
    parts,
    chunks,
    stride_a,
    stride_b,
    STEPS: tl.constexpr,
):
    """``second_sweep`` of the parts in which it left a sum that is not finite; the same arguments.

    The terms here add p_b - p_a to -p_a d, and take it from p_b d, which changes no sum over the vocabulary. The direct
    form does not; where it has the row's other parts, both must be sums of the same terms.
    """
    row = (tl.program_id(0) // parts).to(tl.int64)
    part = tl.program_id(0) % parts
    state_ptr += row * DIVERGENCES * parts + part
    row_a_ptr += row * ROW_SLOTS
    row_b_ptr += row * ROW_SLOTS
    log_sum_a, log_sum_b = tl.load(row_a_ptr + LOG_SUM), tl.load(row_b_ptr + LOG_SUM)
    if _is_finite(state_ptr, 0, DIVERGENCES, parts) | (log_sum_a + log_sum_b != log_sum_a + log_sum_b):
        return
    max_a, max_b = tl.load(row_a_ptr + ROW_MAX), tl.load(row_b_ptr + ROW_MAX)
    pivot = tl.load(pivot_ptr + row)
    a_ptr += row * stride_a
    b_ptr += row * stride_b
    ids = _ids(a_ptr, part, chunks, lead_of(a_ptr), STEPS)
    zero = tl.zeros(ids.shape, tl.float32)
    kl_ab, kl_ba, js, tv, first_moment, second_moment = zero, zero, zero, zero, zero, zero
    gained = zero
    for step in range(chunks * STEPS):
        z_a, z_b = _logits(a_ptr, ids, step, vocab), _logits(b_ptr, ids, step, vocab)
        x_a, x_b = finite_x(z_a - max_a, z_a), finite_x(z_b - max_b, z_b)
        p_a, p_b = tl.exp2((x_a - log_sum_a) * LOG2E), tl.exp2((x_b - log_sum_b) * LOG2E)
        gap = x_b - x_a  # -inf where only a allows the token, +inf where only b does, NaN where neither
        centred = tl.where(tl.abs(gap) < INF, gap - pivot, 0.0)
        first_moment += p_a * centred
        second_moment += p_a * centred * centred
        terms = divergence_terms(gap, log_sum_b - log_sum_a, p_a, p_b)
        kl_ab += terms[0]
        kl_ba += terms[1]
        js += terms[2]
        tv += terms[3]
        gained += p_b - p_a
    is_direct = tl.abs(pivot - (log_sum_b - log_sum_a)) >= SAME_RATIO
    gained_sum = tl.where(is_direct, tl.sum(gained), 0.0)
    tl.store(state_ptr + KL_AB * parts, tl.sum(kl_ab) - gained_sum)
    tl.store(state_ptr + KL_BA * parts, tl.sum(kl_ba) + gained_sum)
    tl.store(state_ptr + JS * parts, tl.sum(js))
    tl.store(state_ptr + TV * parts, tl.sum(tv))
    tl.store(state_ptr + GAP * parts, tl.sum(first_moment))
    tl.store(state_ptr + GAP_SQUARED * parts, tl.sum(second_moment))
