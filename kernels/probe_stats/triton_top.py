"""The exact top list of a row, and the columns that follow from it.

A group is the tokens of one thread of ``first_sweep``, of which the largest logit and the sum of exponentials are
known. The K-th largest of these maxima is a bar: the list's tokens reach it, and only groups that reach it can have
some, which are read again. In nearly all of them one token reaches the bar, and enters; groups with several of
them, as where logits are tied, come last, token by token.

The mass outside the list is a sum and not a difference, so a tail mass of 1e-7 is right: of the groups that were not
read, and of the other tokens of those that were.

A token is one int64 (``triton_math.pack``). Legend: K the length of the list, KP the power of two that holds it, V
logits of a vector.
"""

import triton
import triton.language as tl

from .triton_math import ABSENT, INF, LOG2E, MAX, ordered, pack, unpack
from .triton_rows import COLUMNS, LOG_SUM, ROW_MAX, ROW_POSSIBLE, ROW_REST, ROW_SLOTS
from .triton_threads import T
from .triton_vectors import aligned_words, exp2, lead_of
from .triton_vectors import unpack as unpack_word

ONE = tl.constexpr(1 << 16)  # counts a token beside its place in its group
BEFORE_ALL = tl.constexpr((1 << 63) - 1)


@triton.jit(do_not_specialize_on_alignment=COLUMNS)
def top_tokens(
    z_ptr, grouped_ptr, group_max_ptr, group_sum_ptr, state_ptr, row_ptr, top_ids_ptr, top_logprobs_ptr, top_mass_ptr,
    tail_mass_ptr, nucleus_size_ptr, support_size_ptr, support_entropy_ptr, vocab, parts, vectors, slots, stride_z,
    stride_grouped,
    K: tl.constexpr, KP: tl.constexpr, ROOM: tl.constexpr, GROUPS: tl.constexpr, VECTORS: tl.constexpr,
    TEMPERATURE: tl.constexpr, TOP_K: tl.constexpr, TOP_P: tl.constexpr, PTX: tl.constexpr,
):  # fmt: skip
    """The top list of one row and the columns of ``spec.eval_sampling``; -1 for a nucleus that reaches beyond the list.

    grouped_ptr: the logits [N, V] by whose alignment the tokens were grouped. group_*_ptr: float32 [N, parts * T].
    state_ptr points at the model's first slot. The mass outside the list goes to slot ROW_REST of row_ptr. vectors: of
    each group. ROOM: more than KP. ROOM, GROUPS, VECTORS: powers of two, at least parts * T and ``vectors``.
    """
    VECTOR: tl.constexpr = 16 // (z_ptr.dtype.element_ty.primitive_bitwidth // 8)
    row = tl.program_id(0).to(tl.int64)
    z_ptr += row * stride_z
    row_ptr += row * ROW_SLOTS
    row_max, log_sum = tl.load(row_ptr + ROW_MAX), tl.load(row_ptr + LOG_SUM)
    lead = lead_of(grouped_ptr + row * stride_grouped)
    groups = parts * T

    group = tl.arange(0, GROUPS)
    live = group < groups
    group_max_ptr += row * groups
    group_max = tl.load(group_max_ptr + group, mask=live, other=-INF)
    part_max = tl.load(state_ptr + (row * slots + MAX) * parts + group // T, mask=live, other=-INF)
    sums = tl.load(group_sum_ptr + row * groups + group, mask=live, other=0.0)
    group_max = tl.where(log_sum == log_sum, group_max, -INF)  # an invalid row has no list
    bar = _kth_largest(group_max, K, z_ptr.dtype.element_ty)
    is_read = (group_max >= bar) & (group_max > -INF)
    unread = tl.where(is_read, 0.0, sums * exp2((part_max - row_max - log_sum) * LOG2E, PTX))
    rest = tl.sum(unread).to(tl.float64)

    slot = tl.arange(0, ROOM)
    best = tl.full([ROOM], ABSENT, tl.int64)
    count = 0
    left = tl.where(is_read, group, GROUPS)
    end = (lead + vocab) // VECTOR
    tail = end // (vectors * T) * T + end % T  # like the first group, it may have a part of a vector
    place = tl.min(left)
    if lead_of(z_ptr) != lead:
        place = GROUPS
    while place < GROUPS:
        reached, others = _one_group(z_ptr, place, vectors, vocab, lead, bar, row_max, log_sum, VECTORS, PTX)
        is_one = (reached >= ONE) & (reached < 2 * ONE) & (count < ROOM - 1) & (place != 0) & (place != tail)
        token = _vector_of(place, reached % ONE // VECTOR, vectors) * VECTOR + reached % VECTOR - lead
        key = pack(tl.load(group_max_ptr + place), token, is_one)
        best = tl.where(slot == count, key, best)
        count += is_one.to(tl.int32)
        rest += tl.where(is_one, others, 0.0).to(tl.float64)
        left = tl.where((group == place) & is_one, GROUPS, left)
        place = tl.min(tl.where(left > place, left, GROUPS))

    last = (ordered(bar).to(tl.int64) << 32) - 1  # what a further token must exceed
    place = tl.min(left)
    while place < GROUPS:
        z, ids = _group_logits(z_ptr, place, vectors, vocab, lead, VECTORS)
        keys = pack(z, ids, (ids >= 0) & (z > -INF))
        taken = tl.full([], BEFORE_ALL, tl.int64)
        largest = tl.max(keys)
        while largest > last:
            best = tl.where(slot == count, largest, best)
            count += 1
            taken = largest
            if count == ROOM:
                best = tl.sort(best, descending=True)
                last = tl.max(tl.where(slot == K - 1, best, ABSENT))
                rest += tl.sum(tl.where(slot >= K, _mass(best, row_max, log_sum, PTX), 0.0)).to(tl.float64)
                best = tl.where(slot < K, best, ABSENT)
                count = K + 0
            largest = tl.max(tl.where(keys < taken, keys, ABSENT))
        p = exp2((z - row_max - log_sum) * LOG2E, PTX)
        rest += tl.sum(tl.where(keys < taken, p, 0.0)).to(tl.float64)
        place = tl.min(tl.where(left > place, left, GROUPS))

    list_ = tl.topk(best, KP)
    last = tl.max(tl.where(tl.arange(0, KP) == K - 1, list_, ABSENT))
    rest += tl.sum(tl.where(best < last, _mass(best, row_max, log_sum, PTX), 0.0)).to(tl.float64)
    _store_columns(
        list_, rest, row, row_ptr, row_max, log_sum, top_ids_ptr, top_logprobs_ptr, top_mass_ptr, tail_mass_ptr,
        nucleus_size_ptr, support_size_ptr, support_entropy_ptr, K, KP, TEMPERATURE, TOP_K, TOP_P,
    )  # fmt: skip


@triton.jit
def _kth_largest(values, K: tl.constexpr, ELEMENT: tl.constexpr):
    """The K-th largest of values of ELEMENT, found bit by bit; where there are fewer, the least."""
    BITS: tl.constexpr = 32 if ELEMENT == tl.float32 else (16 if ELEMENT == tl.bfloat16 else 19)
    order = ordered(values) >> (32 - BITS)
    kth = tl.where(tl.sum((order >= 0).to(tl.int32)) >= K, 0, -(1 << (BITS - 1)))
    for bit in tl.static_range(2, BITS + 1):
        higher = kth + (1 << (BITS - bit))
        kth = tl.where(tl.sum((order >= higher).to(tl.int32)) >= K, higher, kth)
    return tl.min(tl.where(order >= kth, values, INF))


@triton.jit
def _vector_of(place, i, vectors):
    """The i-th vector of a group."""
    return place // T * (vectors * T) + i * T + place % T


@triton.jit
def _one_group(
    z_ptr, place, vectors, vocab, lead, bar, row_max, log_sum, VECTORS: tl.constexpr, PTX: tl.constexpr
):  # fmt: skip
    """ONE and the place in the group, summed over its tokens that reach the bar; the mass of the others.

    Of whole vectors alone, and z_ptr must be aligned as its groups are.
    """
    ELEMENT: tl.constexpr = z_ptr.dtype.element_ty
    H: tl.constexpr = 4 // (ELEMENT.primitive_bitwidth // 8)
    NONE: tl.constexpr = -8388608 if ELEMENT == tl.float32 else (-8323200 if ELEMENT == tl.bfloat16 else -67044352)
    i = tl.arange(0, VECTORS)[:, None]
    vector = _vector_of(place, i, vectors)
    is_whole = (i < vectors) & (vector * (4 * H) >= lead) & ((vector + 1) * (4 * H) <= lead + vocab)
    words = tl.load(aligned_words(z_ptr) + vector * 4 + tl.arange(0, 4)[None, :], mask=is_whole, other=NONE)
    mass = tl.zeros([VECTORS, 4], tl.float32)
    reached = tl.zeros([VECTORS, 4], tl.int32)
    for half in tl.static_range(H):
        z = unpack_word(words, half, ELEMENT)
        reaches = z >= bar
        reached += tl.where(reaches, ONE + i * (4 * H) + tl.arange(0, 4)[None, :] * H + half, 0)
        mass += tl.where(reaches, 0.0, exp2((z - row_max) * LOG2E, PTX))
    return tl.sum(reached), tl.sum(mass) * exp2(-log_sum * LOG2E, PTX)


@triton.jit
def _group_logits(z_ptr, place, vectors, vocab, lead, VECTORS: tl.constexpr):
    """Logits [VECTORS, V] of one group, -inf where there is no token, and their ids, -1 there."""
    VECTOR: tl.constexpr = 16 // (z_ptr.dtype.element_ty.primitive_bitwidth // 8)
    i = tl.arange(0, VECTORS)[:, None]
    ids = _vector_of(place, i, vectors) * VECTOR - lead + tl.arange(0, VECTOR)[None, :]
    live = (i < vectors) & (ids >= 0) & (ids < vocab)
    return tl.load(z_ptr + ids, mask=live, other=-INF).to(tl.float32), tl.where(live, ids, -1)


@triton.jit
def _mass(keys, row_max, log_sum, PTX: tl.constexpr):
    z, _ = unpack(keys)
    return exp2((z - row_max - log_sum) * LOG2E, PTX)


@triton.jit
def _store_columns(
    best, rest, row, row_ptr, row_max, log_sum, top_ids_ptr, top_logprobs_ptr, top_mass_ptr, tail_mass_ptr,
    nucleus_size_ptr, support_size_ptr, support_entropy_ptr, K: tl.constexpr, KP: tl.constexpr,
    TEMPERATURE: tl.constexpr, TOP_K: tl.constexpr, TOP_P: tl.constexpr,
):  # fmt: skip
    """The columns of one row from its list and the mass outside it."""
    possible = tl.load(row_ptr + ROW_POSSIBLE).to(tl.int32)
    valid = log_sum == log_sum
    slot = tl.arange(0, KP)
    tl.store(row_ptr + ROW_REST, rest)
    z, ids = unpack(best)
    listed = (slot < K) & (z > -INF)
    z = tl.where(listed, z, -INF)
    log_p = z - row_max - log_sum
    tl.store(top_ids_ptr + row * K + slot, tl.where(listed & (log_p == log_p), ids, -1).to(tl.int64), mask=slot < K)
    tl.store(top_logprobs_ptr + row * K + slot, tl.where(valid, log_p, float("nan")), mask=slot < K)

    p = tl.exp2(log_p * LOG2E).to(tl.float64)
    tail = rest + tl.sum(tl.where(slot < TOP_K, 0.0, p))
    tl.store(top_mass_ptr + row, tl.where(valid, tl.sum(tl.where(slot < TOP_K, p, 0.0)), float("nan")))
    tl.store(tail_mass_ptr + row, tl.where(valid, tail, float("nan")))
    size = _prefix_size(p, slot, possible, TOP_P)
    if TOP_P < 1:
        size = tl.where((size > K) & (possible > K), -1, size)
    tl.store(nucleus_size_ptr + row, tl.where(valid, size, -1).to(tl.int64))
    size, x, w = support(z, slot, TEMPERATURE, TOP_K, TOP_P)
    total = tl.sum(w)
    entropy = tl.log(total) - tl.sum(tl.where(w > 0, w * x, 0.0)) / total
    tl.store(support_size_ptr + row, tl.where(valid, size, -1).to(tl.int64))
    tl.store(support_entropy_ptr + row, tl.where(valid, entropy, float("nan")))


@triton.jit
def support(z, slot, TEMPERATURE: tl.constexpr, TOP_K: tl.constexpr, TOP_P: tl.constexpr):
    """The support in a sorted list z [KP] (-inf where there is no token): size, x, w.

    x = (z - largest) / T; w = exp(x) within the support, 0 beyond it, float64.
    """
    survivors = tl.minimum(tl.sum((z > -INF).to(tl.int32)), TOP_K)
    largest = tl.max(z)
    x = (z - tl.where(largest > -INF, largest, 0.0)) * (1 / TEMPERATURE)
    w = tl.where(slot < survivors, tl.exp2(x * LOG2E), 0.0).to(tl.float64)
    size = _prefix_size(w / tl.sum(w), slot, survivors, TOP_P)
    return size, x, tl.where(slot < size, w, 0.0)


@triton.jit
def _prefix_size(p, slot, count, TOP_P: tl.constexpr):
    """Length of the shortest prefix of p [KP], float64, that reaches TOP_P, at most ``count``."""
    if TOP_P == 1:
        return count
    short = tl.sum(((tl.cumsum(p) < TOP_P) & (slot < count)).to(tl.int32))
    return tl.minimum(short + 1, count)
