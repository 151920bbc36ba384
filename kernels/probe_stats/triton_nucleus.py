"""How many of the likeliest tokens hold a given mass, for any number up to the whole vocabulary.

A search for the logit of the last of them. Each read of the row takes four logits in an interval, and sums the mass and
the number of the tokens that reach each: two neighbours are the next interval. The first read divides it evenly, later
ones interpolate and aim closely above and below. On logits like those of a language model, three reads of bf16 end the
search, and six of fp32. Later every third read divides the integers that logits are, so that it ends on any row.

A program reads one row, and threads keep their own sums, as in ``triton_first_sweep``. Tokens left at the end are tied
and as likely, so their number is a division.

Legend: key, a logit as an integer of the same order, of as many bits as its dtype has; "above" and "below", the ends of
the interval: too little mass reaches the one, and enough the other.
"""

import triton
import triton.language as tl

from .triton_math import INF, LOG2E, ordered
from .triton_rows import COLUMNS, LOG_SUM, ROW_MAX, ROW_POSSIBLE, ROW_SLOTS
from .triton_vectors import aligned_words, exp2, lead_of, unpack

THREADS = tl.constexpr(256)
STEPS = tl.constexpr(4)  # vectors of a thread in a chunk
FROM_GUESS = tl.constexpr((1 / 16, 1 / 100, -1 / 100, -1 / 16))  # of the interval
KEYS_FROM_GUESS = tl.constexpr((2, 1, -1, -2))  # at least
MARGIN = tl.constexpr(0.1)  # nats, for rounding
ORDER_MASK = tl.constexpr((1 << 31) - 1)


@triton.jit(do_not_specialize_on_alignment=COLUMNS)
def nucleus_sizes(z_ptr, row_ptr, nucleus_size_ptr, vocab, stride_z, TOP_P: tl.constexpr, PTX: tl.constexpr):
    """Replaces the -1 of a nucleus beyond the top list, in a valid row. row_ptr: ``triton_rows``."""
    ELEMENT: tl.constexpr = z_ptr.dtype.element_ty
    SHIFT: tl.constexpr = 0 if ELEMENT == tl.float32 else (16 if ELEMENT == tl.bfloat16 else 13)
    row = tl.program_id(0).to(tl.int64)
    row_ptr += row * ROW_SLOTS
    row_max, log_sum = tl.load(row_ptr + ROW_MAX), tl.load(row_ptr + LOG_SUM)
    if (tl.load(nucleus_size_ptr + row) != -1) | (log_sum != log_sum):
        return
    total = tl.exp2(log_sum * LOG2E).to(tl.float64)  # in units of the likeliest token
    target = total * TOP_P
    # The tokens below this hold less than 1 - TOP_P, however many they are.
    lowest = row_max + log_sum + tl.log((1 - TOP_P) / vocab.to(tl.float32)) - MARGIN
    above, below = _key(row_max, SHIFT) + 1, _key(lowest, SHIFT) - 1
    mass_above, mass_below = total * 0, total
    tokens_below = tl.load(row_ptr + ROW_POSSIBLE).to(tl.int32)
    tokens_above = tokens_below * 0
    reads = 0
    while (above - below > 1) & (tokens_below - tokens_above > 1):
        tail = tl.maximum(total - mass_below, 1e-3 * (total - target))
        keys = _next_keys(above, below, total - mass_above, total - target, tail, reads, SHIFT)
        reads += 1
        masses, tokens = _reaching(z_ptr + row * stride_z, vocab, row_max, keys, SHIFT, PTX)
        is_open = above > below
        for i in tl.static_range(len(keys)):  # from the largest
            is_above, is_below = is_open & (masses[i] < target), is_open & (masses[i] >= target)
            above = tl.where(is_above, keys[i], above)
            mass_above = tl.where(is_above, masses[i], mass_above)
            tokens_above = tl.where(is_above, tokens[i], tokens_above)
            below = tl.where(is_below, keys[i], below)
            mass_below = tl.where(is_below, masses[i], mass_below)
            tokens_below = tl.where(is_below, tokens[i], tokens_below)
            is_open &= masses[i] < target
    mass_each = exp2((_logit(below, SHIFT) - row_max) * LOG2E, PTX).to(tl.float64)
    needed = tl.ceil((target - mass_above) / mass_each)
    tied = (tokens_below - tokens_above).to(tl.float64)
    needed = tl.where(needed < tied, tl.where(needed > 1, needed, 1.0), tied)
    tl.store(nucleus_size_ptr + row, tokens_above.to(tl.int64) + needed.to(tl.int64))


@triton.jit
def _key(z, SHIFT: tl.constexpr):
    return ordered(z).to(tl.int64) >> SHIFT


@triton.jit
def _logit(key, SHIFT: tl.constexpr):
    order = (key << SHIFT) + tl.where(key < 0, (1 << SHIFT) - 1, 0)
    order = order.to(tl.int32)
    return tl.where(order < 0, order ^ ORDER_MASK, order).to(tl.float32, bitcast=True)


@triton.jit
def _next_keys(above, below, tail_above, tail, tail_below, reads, SHIFT: tl.constexpr):
    """Four keys in an interval, the largest first. tail: mass that is not to be in the nucleus, and at either end."""
    top = _logit(above, SHIFT)
    width = top - _logit(below, SHIFT)
    # The logarithm of the tail is nearly a line.
    fraction = tl.log((tail_above / tail).to(tl.float32)) / tl.log((tail_above / tail_below).to(tl.float32))
    guess = top - fraction * width
    is_first, divides = reads == 0, (above - below <= 5) | ((reads > 4) & (reads % 3 == 2))
    keys = ()
    for i in tl.static_range(4):
        key = _key(guess + FROM_GUESS[i] * width, SHIFT)
        if i < 2:
            key = tl.maximum(key, _key(guess, SHIFT) + KEYS_FROM_GUESS[i])
        else:
            key = tl.minimum(key, _key(guess, SHIFT) + KEYS_FROM_GUESS[i])
        key = tl.where(is_first, _key(top - width * ((i + 1) / 5), SHIFT), key)
        key = tl.where(divides, above - ((above - below) * (i + 1) + 4) // 5, key)
        keys = keys + (tl.minimum(tl.maximum(key, below + 1), above - 1),)
    return keys


@triton.jit
def _reaching(z_ptr, vocab, row_max, keys, SHIFT: tl.constexpr, PTX: tl.constexpr):
    """Mass, float64, and number, int32, of the tokens of a row that reach each of four keys."""
    ELEMENT: tl.constexpr = z_ptr.dtype.element_ty
    H: tl.constexpr = 4 // (ELEMENT.primitive_bitwidth // 8)
    CHUNK: tl.constexpr = STEPS * THREADS * 4 * H
    lead = lead_of(z_ptr)
    before = (lead > 0).to(tl.int32)
    whole_end = tl.maximum((lead + vocab) // CHUNK, before)
    chunks = (lead + vocab + CHUNK - 1) // CHUNK
    place = tl.arange(0, THREADS)[:, None] * (4 * H) + tl.arange(0, 4)[None, :] * H
    bars, sums = (), ()
    for i in tl.static_range(len(keys)):
        bars = bars + (_logit(keys[i], SHIFT),)
        sums = sums + ((tl.zeros([THREADS, 4], tl.float32), tl.zeros([THREADS, 4], tl.float32)),)
    words = aligned_words(z_ptr) + tl.arange(0, THREADS)[:, None] * 4 + tl.arange(0, 4)[None, :]
    for chunk in range(before, whole_end):
        w = ()
        for step in tl.static_range(STEPS):
            w = w + (tl.load(words + (chunk * STEPS + step) * (THREADS * 4)),)
        for step in tl.static_range(STEPS):
            for half in tl.static_range(H):
                sums = _add(sums, unpack(w[step], half, ELEMENT), bars, row_max, PTX)
    for index in range(before + chunks - whole_end):
        first = tl.where(index < before, 0, whole_end + index - before) * CHUNK - lead
        for step in tl.static_range(STEPS):
            for half in tl.static_range(H):
                ids = first + place + (step * (THREADS * 4 * H) + half)
                z = tl.load(z_ptr + ids, mask=(ids >= 0) & (ids < vocab), other=-INF).to(tl.float32)
                sums = _add(sums, z, bars, row_max, PTX)
    masses, tokens = (), ()
    for i in tl.static_range(len(keys)):
        masses = masses + (tl.sum(sums[i][0].to(tl.float64)),)
        tokens = tokens + (tl.sum(sums[i][1]).to(tl.int32),)
    return masses, tokens


@triton.jit
def _add(sums, z, bars, row_max, PTX: tl.constexpr):
    p = exp2((z - row_max) * LOG2E, PTX)
    out = ()
    for i in tl.static_range(len(bars)):
        mass, tokens = sums[i]
        if PTX > 0:
            out = out + (
                tl.inline_asm_elementwise(
                    "{ .reg .pred q; setp.ge.f32 q, $5, $6; mov.f32 $0, $2; mov.f32 $1, $3;"
                    " @q add.f32 $0, $0, $4; @q add.f32 $1, $1, 0f3F800000; }",
                    "=&f,=&f,f,f,f,f,f", [mass, tokens, p, z, bars[i]],
                    dtype=(tl.float32, tl.float32), is_pure=True, pack=1,
                ),
            )  # fmt: skip
        else:
            reaches = z >= bars[i]
            out = out + ((mass + tl.where(reaches, p, 0.0), tokens + reaches.to(tl.float32)),)
    return out
