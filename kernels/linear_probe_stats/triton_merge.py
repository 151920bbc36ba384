"""The tiles of a row merged to its state: ``state.merge_slots`` in one launch, float64, always in the same order.

Legend: x, a tile's maximum less the row's.
"""

import triton
import triton.language as tl

from ..probe_stats.triton_math import AHEAD, INF, LOG2E, MAX, SUM, WEIGHTED

BLOCK = tl.constexpr(16)  # rows of a program
TILES = tl.constexpr(16)  # tiles per step of a program


@triton.jit(do_not_specialize=["n_rows"])
def merge_tiles(tiles_ptr, merged_ptr, n_rows, tiles, slots, RATES: tl.constexpr):
    """``state.merge_slots`` of BLOCK rows: tiles_ptr float32 [tiles, slots, N] to merged_ptr float64 [slots, N].

    POSSIBLE and REST are neither read nor written. A row with NaN or an infinity has NaN in MAX.
    """
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = row < n_rows
    n = n_rows.to(tl.int64)
    stride = slots * n
    tiles_ptr += tl.where(live, row, 0)
    merged_ptr += row
    tile = tl.arange(0, TILES)
    row_max = tl.full([BLOCK], -INF, tl.float32)
    for first in range(0, tiles, TILES):
        row_max = tl.maximum(row_max, tl.max(_slot(tiles_ptr, MAX, first + tile, tiles, stride, n, -INF), axis=0))
    weighted = tl.zeros([BLOCK], tl.float64)
    ahead = tl.zeros([BLOCK], tl.float64)
    for first in range(0, tiles, TILES):
        x = _slot(tiles_ptr, MAX, first + tile, tiles, stride, n, -INF) - row_max[None, :]
        inside = (first + tile < tiles)[:, None]
        sums = _slot(tiles_ptr, SUM, first + tile, tiles, stride, n, 0.0)
        w = _slot(tiles_ptr, WEIGHTED, first + tile, tiles, stride, n, 0.0) + sums * tl.where(inside, x, 0.0)
        weighted += tl.sum(tl.where(inside, w * tl.exp2(x * LOG2E), 0.0).to(tl.float64), axis=0)
        ahead += tl.sum(_slot(tiles_ptr, AHEAD, first + tile, tiles, stride, n, 0.0).to(tl.float64), axis=0)
    total = _scaled_sum(tiles_ptr, SUM, 1.0, row_max, tiles, stride, n, tile)
    finite = (tl.abs(total) < INF) & (tl.abs(weighted) < INF) & (tl.abs(row_max) < INF)
    tl.store(merged_ptr + MAX * n, tl.where(finite, row_max.to(tl.float64), float("nan")), mask=live)
    tl.store(merged_ptr + SUM * n, total, mask=live)
    tl.store(merged_ptr + WEIGHTED * n, weighted, mask=live)
    tl.store(merged_ptr + AHEAD * n, ahead, mask=live)
    for j in tl.static_range(1, len(RATES)):
        tempered = _scaled_sum(tiles_ptr, SUM + j, RATES[j], row_max, tiles, stride, n, tile)
        tl.store(merged_ptr + (SUM + j) * n, tempered, mask=live)


@triton.jit
def _slot(tiles_ptr, slot, tile, tiles, stride, n, other):
    """One slot of some tiles, [TILES, BLOCK]."""
    return tl.load(tiles_ptr[None, :] + tile[:, None] * stride + slot * n, mask=(tile < tiles)[:, None], other=other)


@triton.jit
def _scaled_sum(tiles_ptr, slot, rate: tl.constexpr, row_max, tiles, stride, n, tile):
    """The sum of a slot over the tiles, each scaled by e^(rate x) from its own maximum to the row's."""
    total = tl.zeros([BLOCK], tl.float64)
    for first in range(0, tiles, tile.shape[0]):
        x = _slot(tiles_ptr, MAX, first + tile, tiles, stride, n, -INF) - row_max[None, :]
        value = _slot(tiles_ptr, slot, first + tile, tiles, stride, n, 0.0)
        value = tl.where((first + tile < tiles)[:, None], value * tl.exp2(x * (rate * LOG2E)), 0.0)
        total += tl.sum(value.to(tl.float64), axis=0)
    return total
