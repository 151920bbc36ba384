"""The first read of the vocabulary: partial states of a part of a row.

A program takes a part of a row, a fixed number of chunks. Each thread reads its own vectors of 16 bytes and keeps
everything to itself: the largest logit that it has seen, and its sums relative to it. Nothing crosses threads before
the part ends, and no lane is masked but in a chunk that reaches beyond the row. A thread's tokens are a group: its
maximum and its sum are stored, and the top list takes its candidates from them.

-inf, NaN and logits near the largest float32 make a sum NaN (0 * inf): ``first_sweep_exact`` computes such a part
again.

Rank of the trace's token: chunks before the token count what is at least its logit, later ones what exceeds it; ties in
the token's own chunk are counted once, apart.

Legend: a is the baseline, b the trained model; z logit, m the largest so far of a thread; for each root r of the rates
(see ``triton_sweeps.few_exponentials``) x = z SCALE r - c with c = m SCALE r, u = 2^x; p = u^n is e^(z - m); and
d = x_b - x_a.
"""

import triton
import triton.language as tl

from .triton_threads import T, add_chunk, finish_states, start_state
from .triton_vectors import (
    LOWEST_SURE,
    PAD,
    aligned_words,
    count_halves,
    halves_above,
    just_below,
    larger_halves,
    lead_of,
    twice,
    unpack,
)


@triton.jit(do_not_specialize=["n_rows"])
def first_sweep(
    a_ptr, b_ptr, token_ptr, token_z_ptr, state_ptr, group_max_ptr, group_sum_ptr,
    n_rows, vocab, parts, chunks, stride_a, stride_b, slots, model_slots,
    SCALES: tl.constexpr, ROOT_OF: tl.constexpr, POWERS: tl.constexpr, MODELS: tl.constexpr,
    STEPS: tl.constexpr, PTX: tl.constexpr, BY_THREAD: tl.constexpr,
):  # fmt: skip
    """States of a part of one row, without the slots of classes.

    a_ptr, b_ptr: logits [N, V]. token_ptr: int64 [N], which may lie outside 0..V where V is a part of the vocabulary;
    token_z_ptr: its logits, float32 [models, N]. state_ptr: float32 [N, slots, parts].
    group_*_ptr: float32 [models, N, parts * T]: a group's largest logit and its sum of e^(z - M), M the part's largest.
    SCALES: SCALE times each root. MODELS: 2 for both models with the sums of the pair. STEPS: vectors of a thread in a
    chunk, of which a part has ``chunks``. BY_THREAD: False for fewer and larger operations, which only the interpreter
    wants.
    """
    ELEMENT: tl.constexpr = a_ptr.dtype.element_ty
    H: tl.constexpr = 4 // (ELEMENT.primitive_bitwidth // 8)
    CHUNK: tl.constexpr = STEPS * T * 4 * H
    row = (tl.program_id(0) // parts).to(tl.int64)
    part = tl.program_id(0) % parts
    a_ptr += row * stride_a
    lead = lead_of(a_ptr)
    a_words = aligned_words(a_ptr)
    token = tl.minimum(tl.maximum(tl.load(token_ptr + row), -1), vocab).to(tl.int32)
    z_token_a = tl.load(token_z_ptr + row)
    a = start_state(z_token_a, len(POWERS), H, ELEMENT)
    if MODELS == 2:
        b_ptr += row * stride_b
        b_words = aligned_words(b_ptr)
        z_token_b = tl.load(token_z_ptr + n_rows + row)
        is_aligned = lead_of(b_ptr) == lead
    else:
        b_words, z_token_b, is_aligned = a_words, z_token_a, True
    b = start_state(z_token_b, len(POWERS), H, ELEMENT)
    pair = (a[0] * 0, a[0] * 0, a[0] * 0)

    first = part * chunks
    end = tl.minimum(first + chunks, (lead + vocab + CHUNK - 1) // CHUNK)
    whole_first = tl.minimum(first + ((first == 0) & (lead > 0)).to(tl.int32), end)
    whole_end = tl.maximum(tl.minimum(end, (lead + vocab) // CHUNK), whole_first)
    if not is_aligned:
        whole_first, whole_end = end, end
    token_chunk = tl.where(token < 0, -1, (token + lead) // CHUNK)
    bars = _bars(z_token_a, ELEMENT, PTX), _bars(z_token_b, ELEMENT, PTX)

    words = tl.arange(0, T)[:, None] * 4 + tl.arange(0, 4)[None, :]
    a_place, b_place = a_words + whole_first * (CHUNK // H), b_words + whole_first * (CHUNK // H)
    for chunk in range(whole_first, whole_end):
        is_before = chunk < token_chunk
        a_w, b_w = (), ()
        for step in tl.static_range(STEPS):
            a_w = a_w + (tl.load(a_place + words + step * (T * 4)),)
        if MODELS == 2:
            for step in tl.static_range(STEPS):
                b_w = b_w + (tl.load(b_place + words + step * (T * 4)),)
            b_z = _all_logits(b_w, ELEMENT)
            b_top = _top(b_w, b_z, ELEMENT, PTX)
            b_rank = _rank(b[1], b_w, b_z, tl.where(is_before, bars[1][0], bars[1][1]), ELEMENT, PTX)
        else:
            b_z, b_top, b_rank = (), b[0], b[1]
        a_z = _all_logits(a_w, ELEMENT)
        a_top = _top(a_w, a_z, ELEMENT, PTX)
        a_rank = _rank(a[1], a_w, a_z, tl.where(is_before, bars[0][0], bars[0][1]), ELEMENT, PTX)
        a, b, pair = add_chunk(
            a, b, pair, a_z, b_z, a_top, b_top, a_rank, b_rank, SCALES, ROOT_OF, POWERS, MODELS, PTX, BY_THREAD
        )
        a_place += CHUNK // H
        b_place += CHUNK // H

    ahead_a, ahead_b = _count(a[1], ELEMENT, PTX), _count(b[1], ELEMENT, PTX)
    place = tl.arange(0, T)[:, None] * (4 * H) + tl.arange(0, 4)[None, :] * H
    if (token_chunk >= whole_first) & (token_chunk < whole_end):
        for step in range(STEPS * H):
            ids = token_chunk * CHUNK + place + (step // H) * (T * 4 * H) + step % H - lead
            ahead_a += _how_many((tl.load(a_ptr + ids).to(tl.float32) == z_token_a) & (ids < token))
            if MODELS == 2:
                ahead_b += _how_many((tl.load(b_ptr + ids).to(tl.float32) == z_token_b) & (ids < token))
    is_hard = tl.zeros([T], tl.int32)
    if whole_first < whole_end:
        is_hard += (a[0] <= LOWEST_SURE).to(tl.int32) + (b[0] <= LOWEST_SURE).to(tl.int32) * (MODELS - 1)
    before = tl.maximum(whole_first - first, 0)
    for index in range(before + end - whole_end):
        chunk = tl.where(index < before, first + index, whole_end + index - before)
        a_z, b_z = (), ()
        for step in tl.static_range(STEPS * H):
            ids = chunk * CHUNK + place + (step // H) * (T * 4 * H) + step % H - lead
            live = (ids >= 0) & (ids < vocab)
            z = tl.load(a_ptr + ids, mask=live, other=0.0).to(tl.float32)
            ahead_a += _how_many(live & ((z > z_token_a) | ((z == z_token_a) & (ids < token))))
            is_hard += _how_many(live & (z <= LOWEST_SURE))
            a_z = a_z + (tl.where(live, z, PAD),)
            if MODELS == 2:
                z = tl.load(b_ptr + ids, mask=live, other=0.0).to(tl.float32)
                ahead_b += _how_many(live & ((z > z_token_b) | ((z == z_token_b) & (ids < token))))
                is_hard += _how_many(live & (z <= LOWEST_SURE))
                b_z = b_z + (tl.where(live, z, PAD),)
        a_top = _top((), a_z, tl.float32, 0)
        b_top = a_top
        if MODELS == 2:
            b_top = _top((), b_z, tl.float32, 0)
        a, b, pair = add_chunk(
            a, b, pair, a_z, b_z, a_top, b_top, a[1], b[1], SCALES, ROOT_OF, POWERS, MODELS, PTX, BY_THREAD
        )

    live_tokens = tl.maximum(tl.minimum(end * CHUNK, lead + vocab) - tl.maximum(first * CHUNK, lead), 0)
    group = (row * parts + part) * T + tl.arange(0, T)
    finish_states(
        a, b, pair, ahead_a, ahead_b, is_hard, live_tokens, state_ptr + row * slots * parts + part, parts, model_slots,
        group_max_ptr + group, group_sum_ptr + group, n_rows.to(tl.int64) * parts * T,
        SCALES, ROOT_OF, POWERS, MODELS, PTX, BY_THREAD,
    )  # fmt: skip


@triton.jit
def _bars(z_token, ELEMENT: tl.constexpr, PTX: tl.constexpr):
    """What a token ahead exceeds, in chunks before the trace's token and after it."""
    below = just_below(z_token, ELEMENT)
    if (PTX >= 90) & (ELEMENT != tl.float32):
        return twice(below, ELEMENT), twice(z_token, ELEMENT)
    else:
        return below, z_token


@triton.jit
def _all_logits(words, ELEMENT: tl.constexpr):
    H: tl.constexpr = 4 // (ELEMENT.primitive_bitwidth // 8)
    logits = ()
    for step in tl.static_range(len(words)):
        for half in tl.static_range(H):
            logits = logits + (unpack(words[step], half, ELEMENT),)
    return logits


@triton.jit
def _top(words, logits, ELEMENT: tl.constexpr, PTX: tl.constexpr):
    """Largest logit [T] of a chunk."""
    if (PTX >= 80) & (ELEMENT != tl.float32):
        top = words[0]
        for step in tl.static_range(1, len(words)):
            top = larger_halves(top, words[step], ELEMENT)
        x, y = tl.split(tl.reshape(top, [T, 2, 2]))
        x, y = tl.split(larger_halves(x, y, ELEMENT))
        top = larger_halves(x, y, ELEMENT)
        return tl.maximum(unpack(top, 0, ELEMENT), unpack(top, 1, ELEMENT))
    else:
        top = logits[0]
        for i in tl.static_range(1, len(logits)):
            top = tl.maximum(top, logits[i])
        return tl.max(top, axis=1)


@triton.jit
def _rank(rank, words, logits, bar, ELEMENT: tl.constexpr, PTX: tl.constexpr):
    if (PTX >= 90) & (ELEMENT != tl.float32):
        for step in tl.static_range(len(words)):
            rank += halves_above(words[step], bar, ELEMENT)
    else:
        for i in tl.static_range(len(logits)):
            rank += (logits[i] > bar).to(tl.int32)
    return rank


@triton.jit
def _count(rank, ELEMENT: tl.constexpr, PTX: tl.constexpr):
    """The rank counts of each thread, int32 [T]."""
    if (PTX >= 90) & (ELEMENT != tl.float32):
        return tl.sum(count_halves(rank), axis=1)
    else:
        return tl.sum(rank, axis=1)


@triton.jit
def _how_many(condition):
    """Of each thread, int32 [T], of conditions [T, 4]."""
    return tl.sum(condition.to(tl.int32), axis=1)
