"""The state of a thread in ``first_sweep``: its largest logit, and its sums relative to it.

Legend as in ``triton_first_sweep``.
"""

import triton
import triton.language as tl

from .triton_math import A_D, A_DD, AHEAD, B_D, INF, MAX, POSSIBLE, SUM, WEIGHTED, power
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
    BY_THREAD: tl.constexpr,
):  # fmt: skip
    """A chunk's logits, tuples of [T, 4], added to the threads' states."""
    if BY_THREAD:
        a_z, b_z = _split_words(a_z), _split_words(b_z)
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
            (pair[0] + move * a[2]) * f_a + _by_thread(a_d),
            (pair[1] + move * b[2]) * f_b + _by_thread(b_d),
            (pair[2] + move * (2 * pair[0] + move * a[2])) * f_a + _by_thread(a_dd),
        )
        b = _merge(b, b_max, b_rank, b_new, b_f, b_by, ROOT_OF, POWERS)
    else:
        for i in tl.static_range(len(a_z)):
            a_new, _, _ = _add_logits(a_new, a_z[i], a_max, SCALES, ROOT_OF, POWERS, PTX)
        a_f, a_by = _rescale(a[0], a_max, SCALES, ROOT_OF[0], PTX)
    a = _merge(a, a_max, a_rank, a_new, a_f, a_by, ROOT_OF, POWERS)
    return a, b, pair


@triton.jit
def _split_words(logits):
    """Logits [T, 4] as four of [T] each, so that a thread has one sum of each kind and not four."""
    out = ()
    for i in tl.static_range(len(logits)):
        even, odd = tl.split(tl.reshape(logits[i], [T, 2, 2]))
        first, third = tl.split(even)
        second, fourth = tl.split(odd)
        out = out + (first, second, third, fourth)
    return out


@triton.jit
def _by_thread(sums):
    """[T] of sums [T, 4] or [T]."""
    if len(sums.shape) == 2:
        return tl.sum(sums, axis=1)
    else:
        return sums


@triton.jit
def _beside(of_threads, logits):
    """[T] in the form of logits."""
    if len(logits.shape) == 2:
        return of_threads[:, None]
    else:
        return of_threads


@triton.jit
def _zeros(zero, n: tl.constexpr):
    zeros = ()
    for _ in tl.static_range(n):
        zeros = zeros + (zero,)
    return zeros


@triton.jit
def _add_logits(sums, z, z_max, SCALES: tl.constexpr, ROOT_OF: tl.constexpr, POWERS: tl.constexpr, PTX: tl.constexpr):
    """Sums of p x, of p and of each further rate; returns them, p and x."""
    x = times_minus(z, SCALES[ROOT_OF[0]], _beside(z_max * SCALES[ROOT_OF[0]], z))
    roots = ()
    for r in tl.static_range(len(SCALES)):
        if r == ROOT_OF[0]:
            roots = roots + (exp2(x, PTX),)
        else:
            roots = roots + (exp2(times_minus(z, SCALES[r], _beside(z_max * SCALES[r], z)), PTX),)
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
        sums = sums + (old[4][j - 1] * power(factors[ROOT_OF[j]], POWERS[j]) + _by_thread(new[j + 1]),)
    weighted = (old[3] + old[2] * by) * f + _by_thread(new[0])
    return z_max, rank, old[2] * f + _by_thread(new[1]), weighted, sums


@triton.jit
def finish_states(
    a, b, pair, ahead_a, ahead_b, is_hard, live_tokens, state_ptr, parts, model_slots, group_max_ptr, group_sum_ptr,
    next_model, SCALES: tl.constexpr, ROOT_OF: tl.constexpr, POWERS: tl.constexpr, MODELS: tl.constexpr,
    PTX: tl.constexpr, BY_THREAD: tl.constexpr,
):  # fmt: skip
    """Stores the slots of a part. ahead_*, is_hard: int32 [T], counts. group_*_ptr: [T], next_model further for b."""
    if MODELS == 2:
        max_a, max_b = tl.split(tl.max(tl.join(a[0], b[0]), axis=0))
    else:
        max_a = tl.max(a[0])
    f_a, by_a = _to_part(a[0], max_a, SCALES[ROOT_OF[0]], PTX)
    f_a = power(f_a, POWERS[0])
    tl.store(group_max_ptr, tl.where(a[0] > LOWEST_SURE, a[0], -INF))
    tl.store(group_sum_ptr, a[2] * f_a)
    terms = _terms(a, ahead_a, f_a, by_a, max_a, SCALES, ROOT_OF, POWERS, PTX)
    if MODELS == 2:
        f_b, by_b = _to_part(b[0], max_b, SCALES[ROOT_OF[0]], PTX)
        f_b = power(f_b, POWERS[0])
        tl.store(group_max_ptr + next_model, tl.where(b[0] > LOWEST_SURE, b[0], -INF))
        tl.store(group_sum_ptr + next_model, b[2] * f_b)
        a_d, b_d, a_dd = pair
        move = by_b - by_a
        terms = terms + _terms(b, ahead_b, f_b, by_b, max_b, SCALES, ROOT_OF, POWERS, PTX)
        terms = terms + ((a_d + move * a[2]) * f_a, (b_d + move * b[2]) * f_b)
        terms = terms + ((a_dd + move * (2 * a_d + move * a[2])) * f_a,)
    sums = _add_threads(terms + (is_hard.to(tl.float32),), BY_THREAD)
    is_sure = sums[len(terms)] == 0
    _store_model(sums, 0, max_a, is_sure, live_tokens, state_ptr, parts, POWERS)
    if MODELS == 2:
        state_ptr += model_slots * parts
        _store_model(sums, len(POWERS) + 2, max_b, is_sure, live_tokens, state_ptr, parts, POWERS)
        state_ptr += model_slots * parts
        nats: tl.constexpr = POWERS[0] / SCALE
        tl.store(state_ptr + A_D * parts, sums[len(terms) - 3] * nats)
        tl.store(state_ptr + B_D * parts, sums[len(terms) - 2] * nats)
        tl.store(state_ptr + A_DD * parts, sums[len(terms) - 1] * (nats * nats))


@triton.jit
def _terms(
    model, ahead, f, by, part_max, SCALES: tl.constexpr, ROOT_OF: tl.constexpr, POWERS: tl.constexpr, PTX: tl.constexpr
):
    """What adds up to WEIGHTED, AHEAD and the sum of each rate of a part, each [T]."""
    z_max, _, total, weighted, sums = model
    terms = ((weighted + total * by) * f, ahead.to(tl.float32), total * f)
    for j in tl.static_range(1, len(POWERS)):
        factor, _ = _to_part(z_max, part_max, SCALES[ROOT_OF[j]], PTX)
        terms = terms + (sums[j - 1] * power(factor, POWERS[j]),)
    return terms


@triton.jit
def _store_model(sums, FIRST: tl.constexpr, part_max, is_sure, live_tokens, state_ptr, parts, POWERS: tl.constexpr):
    """Stores one model's slots. FIRST: of its sums."""
    tl.store(state_ptr + MAX * parts, tl.where(live_tokens > 0, part_max, -INF))
    tl.store(state_ptr + WEIGHTED * parts, sums[FIRST] * (POWERS[0] / SCALE))
    tl.store(state_ptr + AHEAD * parts, sums[FIRST + 1])
    tl.store(state_ptr + POSSIBLE * parts, live_tokens.to(tl.float32))
    tl.store(state_ptr + SUM * parts, tl.where(is_sure, sums[FIRST + 2], float("nan")))
    for j in tl.static_range(1, len(POWERS)):
        tl.store(state_ptr + (SUM + j) * parts, sums[FIRST + 2 + j])


@triton.jit
def _add_threads(terms, BY_THREAD: tl.constexpr):
    """The sum over the threads of each term, [T]. Up to 16 cross the threads together: one after the other they would
    take an eighth of the time of a part."""
    sums = ()
    if not BY_THREAD:
        for i in tl.static_range(len(terms)):
            sums = sums + (tl.sum(terms[i]),)
        return sums
    for _ in tl.static_range(len(terms) // 16):
        sums = sums + _add_group(terms, len(sums), 4)
    for level in tl.static_range(3, -1, -1):
        if len(terms) - len(sums) >= 2**level:
            sums = sums + _add_group(terms, len(sums), level)
    return sums


@triton.jit
def _add_group(terms, FIRST: tl.constexpr, LEVELS: tl.constexpr):
    """The sums of 2^LEVELS terms."""
    joined = ()
    for i in tl.static_range(2**LEVELS):
        joined = joined + (terms[FIRST + i],)
    for _ in tl.static_range(LEVELS):
        pairs = ()
        for i in tl.static_range(len(joined) // 2):
            pairs = pairs + (tl.join(joined[2 * i], joined[2 * i + 1]),)
        joined = pairs
    sums = (tl.sum(joined[0], axis=0),)
    for _ in tl.static_range(LEVELS):
        halves = ()
        for i in tl.static_range(len(sums)):
            halves = halves + tl.split(sums[i])
        sums = halves
    return sums


@triton.jit
def _to_part(z_max, part_max, SCALE_R: tl.constexpr, PTX: tl.constexpr):
    """2^by and by = c - M SCALE_R, with c as it was rounded."""
    by = -times_minus(part_max + z_max * 0, SCALE_R, z_max * SCALE_R)
    return exp2(by, PTX), by
