"""The tiles of a row merged to its state: ``state.merge_slots`` in one launch, float64, always in the same order.

Legend: a is the baseline, b the trained model; x, a tile's maximum less the row's.
"""

import triton
import triton.language as tl

from ..probe_stats.triton_math import A_D, A_DD, AHEAD, B_D, INF, LOG2E, MAX, POSSIBLE, REST, SUM, WEIGHTED, scaled

BLOCK = tl.constexpr(16)  # rows of a program
TILES = tl.constexpr(16)  # tiles per step of a program


@triton.jit(do_not_specialize=["n_rows"])
def merge_tiles(
    parts_ptr, merged_ptr, n_rows, tiles, slots, model_slots, n_classes,
    RATES: tl.constexpr, MODELS: tl.constexpr, PAIR_SUMS: tl.constexpr,
):  # fmt: skip
    """``state.merge_slots`` of BLOCK rows: parts_ptr float32 [tiles, slots, N] to merged_ptr float64 [slots, N]."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = row < n_rows
    n = n_rows.to(tl.int64)
    stride = slots * n
    parts_ptr += tl.where(live, row, 0)
    merged_ptr += row
    part = tl.arange(0, TILES)
    for model in tl.static_range(MODELS):
        model_ptr = parts_ptr + model * model_slots * n
        out_ptr = merged_ptr + model * model_slots * n
        row_max = tl.full([BLOCK], -INF, tl.float32)
        for first in range(0, tiles, TILES):
            m = _slot(model_ptr, MAX, first + part, tiles, stride, n, -INF)
            row_max = tl.maximum(row_max, tl.max(m, axis=0))
        total = _scaled_sum(model_ptr, SUM, 1.0, row_max, tiles, stride, n, part)
        valid = (total == total) & (row_max < INF)
        tl.store(out_ptr + MAX * n, tl.where(valid, row_max.to(tl.float64), float("nan")), mask=live)
        tl.store(out_ptr + SUM * n, tl.where(valid, total, float("nan")), mask=live)
        weighted = tl.zeros([BLOCK], tl.float64)
        ahead = tl.zeros([BLOCK], tl.float64)
        possible = tl.zeros([BLOCK], tl.float64)
        for first in range(0, tiles, TILES):
            shift = _slot(model_ptr, MAX, first + part, tiles, stride, n, -INF) - row_max[None, :]
            possible_tile = shift > -INF
            sums = _slot(model_ptr, SUM, first + part, tiles, stride, n, 0.0)
            w = _slot(model_ptr, WEIGHTED, first + part, tiles, stride, n, 0.0) + sums * tl.where(
                possible_tile, shift, 0.0
            )
            weighted += tl.sum(tl.where(possible_tile, w * tl.exp2(shift * LOG2E), 0.0).to(tl.float64), axis=0)
            ahead += tl.sum(_slot(model_ptr, AHEAD, first + part, tiles, stride, n, 0.0).to(tl.float64), axis=0)
            possible += tl.sum(_slot(model_ptr, POSSIBLE, first + part, tiles, stride, n, 0.0).to(tl.float64), axis=0)
        tl.store(out_ptr + WEIGHTED * n, tl.where(valid, weighted, float("nan")), mask=live)
        tl.store(out_ptr + AHEAD * n, tl.where(valid, ahead, float("nan")), mask=live)
        tl.store(out_ptr + POSSIBLE * n, tl.where(valid, possible, float("nan")), mask=live)
        rest = _scaled_sum(model_ptr, REST, 1.0, row_max, tiles, stride, n, part)
        tl.store(out_ptr + REST * n, tl.where(valid, rest, float("nan")), mask=live)
        for j in tl.static_range(1, len(RATES)):
            tempered = _scaled_sum(model_ptr, SUM + j, RATES[j], row_max, tiles, stride, n, part)
            tl.store(out_ptr + (SUM + j) * n, tl.where(valid, tempered, float("nan")), mask=live)
        for c in range(n_classes):
            slot = SUM + len(RATES) + c
            mass = _scaled_sum(model_ptr, slot, 1.0, row_max, tiles, stride, n, part)
            tl.store(out_ptr + slot * n, tl.where(valid, mass, float("nan")), mask=live)
    if PAIR_SUMS:
        _merge_pair(parts_ptr, merged_ptr, n, tiles, stride, model_slots, live, part)


@triton.jit
def _slot(model_ptr, slot, part, tiles, stride, n, other):
    """One slot of some tiles, [TILES, BLOCK]."""
    return tl.load(model_ptr[None, :] + part[:, None] * stride + slot * n, mask=(part < tiles)[:, None], other=other)


@triton.jit
def _scaled_sum(model_ptr, slot, rate: tl.constexpr, row_max, tiles, stride, n, part):
    """The sum of a slot over the tiles, each scaled by e^(rate x) from its own maximum to the row's."""
    total = tl.zeros([BLOCK], tl.float64)
    for first in range(0, tiles, part.shape[0]):
        shift = _slot(model_ptr, MAX, first + part, tiles, stride, n, -INF) - row_max[None, :]
        value = _slot(model_ptr, slot, first + part, tiles, stride, n, 0.0)
        # A tile without a possible token has x = z: its sums are 0, and may not meet the NaN of -inf - -inf.
        value = tl.where((shift > -INF) | (value != value), value * tl.exp2(shift * (rate * LOG2E)), 0.0)
        total += tl.sum(value.to(tl.float64), axis=0)
    return total


@triton.jit
def _merge_pair(parts_ptr, merged_ptr, n, tiles, stride, model_slots, live, part):
    """A tile took d relative to its own maxima; ``offset`` converts it to those of the row."""
    b_ptr = parts_ptr + model_slots * n
    pair_ptr = parts_ptr + 2 * model_slots * n
    max_a = tl.load(merged_ptr + MAX * n, mask=live, other=0.0)[None, :].to(tl.float32)
    max_b = tl.load(merged_ptr + (model_slots + MAX) * n, mask=live, other=0.0)[None, :].to(tl.float32)
    a_d_sum = tl.zeros([BLOCK], tl.float64)
    b_d_sum = tl.zeros([BLOCK], tl.float64)
    a_dd_sum = tl.zeros([BLOCK], tl.float64)
    forbidden_by_b = tl.zeros([BLOCK], tl.int32)
    forbidden_by_a = tl.zeros([BLOCK], tl.int32)
    for first in range(0, tiles, part.shape[0]):
        tile = first + part
        x_a = _slot(parts_ptr, MAX, tile, tiles, stride, n, -INF) - max_a
        x_b = _slot(b_ptr, MAX, tile, tiles, stride, n, -INF) - max_b
        offset = tl.where((x_a > -INF) & (x_b > -INF), x_b - x_a, 0.0).to(tl.float64)
        w_a, w_b = tl.exp2(x_a * LOG2E).to(tl.float64), tl.exp2(x_b * LOG2E).to(tl.float64)
        sum_a = _slot(parts_ptr, SUM, tile, tiles, stride, n, 0.0)
        sum_b = _slot(b_ptr, SUM, tile, tiles, stride, n, 0.0)
        a_d = _slot(pair_ptr, A_D, tile, tiles, stride, n, 0.0)
        b_d = _slot(pair_ptr, B_D, tile, tiles, stride, n, 0.0)
        a_dd = _slot(pair_ptr, A_DD, tile, tiles, stride, n, 0.0)
        forbidden_by_b += tl.sum((a_d == -INF).to(tl.int32), axis=0)
        forbidden_by_a += tl.sum((b_d == -INF).to(tl.int32), axis=0)
        a_d, b_d = tl.where(a_d == -INF, 0.0, a_d), tl.where(b_d == -INF, 0.0, b_d)
        a_d_sum += tl.sum(scaled(w_a, a_d + offset * sum_a), axis=0)
        b_d_sum += tl.sum(scaled(w_b, b_d + offset * sum_b), axis=0)
        a_dd_sum += tl.sum(scaled(w_a, a_dd + offset * (2 * a_d + offset * sum_a)), axis=0)
    out_ptr = merged_ptr + 2 * model_slots * n
    tl.store(out_ptr + A_D * n, tl.where(forbidden_by_b > 0, -INF, a_d_sum), mask=live)
    tl.store(out_ptr + B_D * n, tl.where(forbidden_by_a > 0, -INF, b_d_sum), mask=live)
    tl.store(out_ptr + A_DD * n, a_dd_sum, mask=live)
