"""The exact top list of a row, and the columns that follow from it.

The best token is in the group of GROUP consecutive tokens with the largest maximum, of tied ones the first. Taken
out, it leaves that group with a smaller maximum and a smaller mass, and the next best token follows in the same way:
K steps, each of which reads one group again. The groups' remaining masses are the mass outside the list, summed
directly, so a tail mass of 1e-7 is right.

A token is one int64 (``triton_math.pack``). Legend: K the length of the list, KP the power of two that holds it.
"""

import triton
import triton.language as tl

from .triton_math import ABSENT, ID_MASK, INF, LOG2E, MAX, pack, unpack
from .triton_sweeps import (
    CHUNK,
    COLUMNS,
    GROUP,
    LOG_SUM,
    ROW_MAX,
    ROW_POSSIBLE,
    ROW_REST,
    ROW_SLOTS,
    load_logits,
)


@triton.jit(do_not_specialize_on_alignment=COLUMNS)
def top_tokens(
    z_ptr, group_max_ptr, group_sum_ptr, state_ptr, row_ptr, top_ids_ptr, top_logprobs_ptr, top_mass_ptr,
    tail_mass_ptr, nucleus_size_ptr, support_size_ptr, support_entropy_ptr, vocab, groups, chunks, slots, stride_z,
    K: tl.constexpr, KP: tl.constexpr, GROUPS: tl.constexpr,
    TEMPERATURE: tl.constexpr, TOP_K: tl.constexpr, TOP_P: tl.constexpr,
):  # fmt: skip
    """The top list of one row and the columns of ``spec.eval_sampling``; -1 for a nucleus that reaches beyond the list.

    group_*_ptr: float32 [N, groups]. state_ptr points at the model's first slot. The mass outside the list goes to
    slot ROW_REST of row_ptr. GROUPS: a power of two, at least ``groups``.
    """
    row = tl.program_id(0).to(tl.int64)
    z_ptr += row * stride_z
    row_ptr += row * ROW_SLOTS
    row_max, log_sum = tl.load(row_ptr + ROW_MAX), tl.load(row_ptr + LOG_SUM)
    possible = tl.load(row_ptr + ROW_POSSIBLE).to(tl.int32)
    valid = log_sum == log_sum

    group = tl.arange(0, GROUPS)
    live = group < groups
    group_best = pack(tl.load(group_max_ptr + row * groups + group, mask=live, other=-INF), group, live)
    chunk_max = tl.load(state_ptr + (row * slots + MAX) * chunks + group // (CHUNK // GROUP), mask=live, other=-INF)
    sums = tl.load(group_sum_ptr + row * groups + group, mask=live, other=0.0)
    group_rest = sums * tl.exp2((chunk_max - row_max - log_sum) * LOG2E)

    slot = tl.arange(0, KP)
    best = tl.full([KP], ABSENT, tl.int64)
    last = tl.full([], (1 << 63) - 1, tl.int64)
    for k in range(K):
        inverted_place = tl.max(group_best) & ID_MASK
        place = tl.minimum((inverted_place ^ ID_MASK).to(tl.int32), groups - 1)  # of the last group when all are empty
        ids = place * GROUP + tl.arange(0, GROUP)
        z = load_logits(z_ptr, ids, vocab)
        keys = pack(z, ids, ids < vocab)
        last = tl.max(tl.where(keys < last, keys, ABSENT))
        best = tl.where(slot == k, last, best)
        behind = keys < last
        runner_up = tl.max(tl.where(behind, keys, ABSENT))
        group_key = tl.where(runner_up == ABSENT, ABSENT, runner_up & ~ID_MASK | inverted_place)
        group_best = tl.where(group == place, group_key, group_best)
        p = tl.exp2((z - row_max - log_sum) * LOG2E)
        group_rest = tl.where(group == place, tl.sum(tl.where(behind, p, 0.0)), group_rest)
    rest = tl.sum(group_rest.to(tl.float64))
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
