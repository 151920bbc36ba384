"""The exact top list of a row, and the columns that follow from it.

A group is the tokens of one thread of ``first_sweep``, of which the largest logit and the sum of exponentials are
known.
The best token is in the group with the largest maximum; of tied groups, all are opened and the smallest id counts.
Taken
out, it leaves that group with a smaller maximum and a smaller mass, and the next best token follows in the same way.
The
groups' remaining masses are the mass outside the list, summed directly, so a tail mass of 1e-7 is right.

A token is one int64 (``triton_math.pack``). Legend: K the length of the list, KP the power of two that holds it.
"""

import triton
import triton.language as tl

from .triton_first_sweep import T
from .triton_math import ABSENT, INF, LOG2E, MAX, pack, unpack
from .triton_rows import COLUMNS, LOG_SUM, ROW_MAX, ROW_POSSIBLE, ROW_REST, ROW_SLOTS
from .triton_vectors import lead_of

UNOPENED = tl.constexpr((1 << 32) - 1)  # in place of an id: ahead of every tied token


@triton.jit(do_not_specialize_on_alignment=COLUMNS)
def top_tokens(
    z_ptr, group_max_ptr, group_sum_ptr, state_ptr, row_ptr, top_ids_ptr, top_logprobs_ptr, top_mass_ptr,
    tail_mass_ptr, nucleus_size_ptr, support_size_ptr, support_entropy_ptr, vocab, parts, vectors, slots, stride_z,
    K: tl.constexpr, KP: tl.constexpr, GROUPS: tl.constexpr, VECTORS: tl.constexpr,
    TEMPERATURE: tl.constexpr, TOP_K: tl.constexpr, TOP_P: tl.constexpr,
):  # fmt: skip
    """The top list of one row and the columns of ``spec.eval_sampling``; -1 for a nucleus that reaches beyond the list.

    group_*_ptr: float32 [N, parts * T]. state_ptr points at the model's first slot. The mass outside the list goes to
    slot
    ROW_REST of row_ptr. vectors: of each group. GROUPS, VECTORS: powers of two, at least parts * T and ``vectors``.
    """
    row = tl.program_id(0).to(tl.int64)
    z_ptr += row * stride_z
    row_ptr += row * ROW_SLOTS
    row_max, log_sum = tl.load(row_ptr + ROW_MAX), tl.load(row_ptr + LOG_SUM)
    lead = lead_of(z_ptr)
    groups = parts * T

    group = tl.arange(0, GROUPS)
    live = group < groups
    group_max = tl.load(group_max_ptr + row * groups + group, mask=live, other=-INF)
    group_best = tl.where(live, pack(group_max, group, live) | UNOPENED, ABSENT)
    part_max = tl.load(state_ptr + (row * slots + MAX) * parts + group // T, mask=live, other=-INF)
    sums = tl.load(group_sum_ptr + row * groups + group, mask=live, other=0.0)
    group_rest = sums * tl.exp2((part_max - row_max - log_sum) * LOG2E)

    slot = tl.arange(0, KP)
    best = tl.full([KP], ABSENT, tl.int64)
    count = 0
    while count < K:
        largest = tl.max(group_best)
        place = tl.min(tl.where(group_best == largest, group, GROUPS - 1))
        place = tl.minimum(place, groups - 1)
        z, ids = group_logits(z_ptr, place, vectors, vocab, lead, VECTORS)
        keys = pack(z, ids, (ids >= 0) & (ids < vocab))
        is_unopened = (largest & UNOPENED) == UNOPENED
        behind = (keys < largest) | is_unopened
        group_best = tl.where(group == place, tl.max(tl.where(behind, keys, ABSENT)), group_best)
        if not is_unopened:
            p = tl.exp2((z - row_max - log_sum) * LOG2E)
            group_rest = tl.where(group == place, tl.sum(tl.where(behind, p, 0.0)), group_rest)
            best = tl.where(slot == count, largest, best)
            count += 1
    rest = tl.sum(group_rest.to(tl.float64))
    _store_columns(
        best, rest, row, row_ptr, row_max, log_sum, top_ids_ptr, top_logprobs_ptr, top_mass_ptr, tail_mass_ptr,
        nucleus_size_ptr, support_size_ptr, support_entropy_ptr, K, KP, TEMPERATURE, TOP_K, TOP_P,
    )  # fmt: skip


@triton.jit
def group_logits(z_ptr, place, vectors, vocab, lead, VECTORS: tl.constexpr):
    """Logits [VECTORS, V] of one group, -inf where there is no token, and their ids."""
    VECTOR: tl.constexpr = 16 // (z_ptr.dtype.element_ty.primitive_bitwidth // 8)
    vector = tl.arange(0, VECTORS)[:, None]
    first = (place // T) * (vectors * T * VECTOR) + (place % T) * VECTOR - lead
    ids = first + vector * (T * VECTOR) + tl.arange(0, VECTOR)[None, :]
    live = (vector < vectors) & (ids >= 0) & (ids < vocab)
    return tl.load(z_ptr + ids, mask=live, other=-INF).to(tl.float32), tl.where(live, ids, -1)


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
