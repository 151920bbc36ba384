"""The kernels: a tile of logits from the tensor cores, reduced to partial states before the next one replaces it.

A program takes tiles of ROWS positions by IDS vocabulary entries, one after the other. It multiplies both models'
operands into float32 sums in registers, writes them to a scratch tile of its own, which stays in the caches, and reads
them back SLICE columns at a time to reduce each row to a partial state (``probe_stats.state``). So the tile can be as
large as the tensor cores need (384 operands for 32,768 products), and the registers hold sums and not logits. Programs
that run at the same time have the same entries, so each piece of the head is read from memory once.

A token that may be in the top list is a candidate: its logit reaches its row's bar, as about 32 tokens per place of the
list do (``triton.bars``). Candidates are appended to the row's list in any order, each with the other model's logit;
sorted, the list is the same in every run.

Cost of an entry, both models, at H = 2,560: 5,120 products, 2.5 cycles of an H100's SM on the tensor cores; 8 bytes to
the scratch tile and 20 back; some 80 instructions and 6 exponentials, 1 cycle.

Legend: a is the baseline, b the trained model, z logit, m the row's maximum within the tile, x = z - m; R = ROWS, I =
IDS, S = SLICE.
"""

import triton
import triton.language as tl

from ..probe_stats.triton_math import (
    A_D,
    A_DD,
    AHEAD,
    B_D,
    INF,
    LOG2E,
    MAX,
    POSSIBLE,
    REST,
    SUM,
    WEIGHTED,
    finite_gap,
    finite_x,
    pack,
    power,
)

ROWS = tl.constexpr(128)
CLASSES = tl.constexpr(8)  # classes per pass over a tile


@triton.jit(do_not_specialize=["n_rows"])
def tile_states(
    hidden_a_ptr, weight_a_ptr, bias_a_ptr, hidden_b_ptr, weight_b_ptr, bias_b_ptr, token_ptr, token_z_ptr, bar_ptr,
    class_ptr, scratch_ptr, state_ptr, count_ptr, keys_ptr, others_ptr, listed_token_z_ptr,
    n_rows, vocab, size_a, size_b, stride_hidden_a, stride_weight_a, stride_hidden_b, stride_weight_b, slots,
    model_slots, n_classes,
    SCALE_A: tl.constexpr, SOFTCAP_A: tl.constexpr, HAS_BIAS_A: tl.constexpr,
    SCALE_B: tl.constexpr, SOFTCAP_B: tl.constexpr, HAS_BIAS_B: tl.constexpr,
    RATES: tl.constexpr, ROOTS: tl.constexpr, ROOT_OF: tl.constexpr, POWERS: tl.constexpr,
    MODELS: tl.constexpr, PAIR_SUMS: tl.constexpr, CAPACITY: tl.constexpr,
    IDS: tl.constexpr, SLICE: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """The state of every tile, state_ptr float32 [tiles, slots, N], and both models' candidates.

    hidden_*_ptr: [N, H]. weight_*_ptr: [V, H]. bias_*_ptr: float32 [V], unread without HAS_BIAS. token_ptr: int64 [N].
    token_z_ptr, bar_ptr: float32 [models, N]. class_ptr: uint8 [V], unread when n_classes is 0. scratch_ptr: float32
    [programs, MODELS, ROWS, IDS]. count_ptr: int32 [models, N], from 0. keys_ptr: int64 [models, N, CAPACITY];
    others_ptr: float32, the same shape. listed_token_z_ptr: float32 [models, N], the token's logit as its tile has it.
    H is a multiple of DEPTH. SOFTCAP 0: none. RATES, ROOTS, ROOT_OF, POWERS: as in ``first_sweep``.
    """
    n = n_rows.to(tl.int64)
    row_tiles = tl.cdiv(n_rows, ROWS)
    scratch_ptr += tl.program_id(0).to(tl.int64) * (MODELS * ROWS * IDS)
    for index in range(tl.program_id(0), row_tiles * tl.cdiv(vocab, IDS), tl.num_programs(0)):
        first_row, first_id = (index % row_tiles) * ROWS, (index // row_tiles) * IDS
        row = first_row + tl.arange(0, ROWS)
        live = row < n_rows
        row = tl.where(live, row, 0).to(tl.int64)
        token = tl.load(token_ptr + row).to(tl.int32)
        tile_state_ptr = state_ptr + (index // row_tiles).to(tl.int64) * slots * n + row
        for model in range(MODELS):
            scratch = scratch_ptr + model * (ROWS * IDS)
            m = logits_tile(
                scratch, model, hidden_a_ptr, weight_a_ptr, bias_a_ptr, hidden_b_ptr, weight_b_ptr, bias_b_ptr,
                first_row, first_id, n_rows, vocab, size_a, size_b, stride_hidden_a, stride_weight_a, stride_hidden_b,
                stride_weight_b, SCALE_A, SOFTCAP_A, HAS_BIAS_A, SCALE_B, SOFTCAP_B, HAS_BIAS_B,
                IDS, SLICE, DEPTH,
            )  # fmt: skip
            model_state_ptr = tile_state_ptr + model * model_slots * n
            tl.store(model_state_ptr + MAX * n, m, mask=live)
            tl.debug_barrier()  # a slice is read by other threads than those that wrote it
            model_row = model * n + row
            bar = tl.load(bar_ptr + model_row, mask=live, other=INF)
            _model_state(
                scratch, m, bar, token, tl.load(token_z_ptr + model_row), first_id, live, model_state_ptr, n, class_ptr,
                vocab, n_classes, RATES, ROOTS, ROOT_OF, POWERS, IDS, SLICE,
            )  # fmt: skip
        if PAIR_SUMS:
            max_b = tl.load(tile_state_ptr + (model_slots + MAX) * n)
            _pair_state(
                scratch_ptr,
                tl.load(tile_state_ptr + MAX * n),
                max_b,
                live,
                tile_state_ptr + 2 * model_slots * n,
                n,
                IDS,
                SLICE,
            )
        for model in range(MODELS):
            model_row = model * n + row
            _collect(
                scratch_ptr + model * (ROWS * IDS), scratch_ptr + (MODELS - 1 - model) * (ROWS * IDS),
                tl.load(bar_ptr + model_row, mask=live, other=INF), token, model_row, live, first_id, count_ptr,
                keys_ptr, others_ptr, listed_token_z_ptr, CAPACITY, IDS, SLICE,
            )  # fmt: skip
        tl.debug_barrier()  # before the next tile takes the scratch


@triton.jit
def logits_tile(
    scratch_ptr, model, hidden_a_ptr, weight_a_ptr, bias_a_ptr, hidden_b_ptr, weight_b_ptr, bias_b_ptr, first_row,
    first_id, n_rows, vocab, size_a, size_b, stride_hidden_a, stride_weight_a, stride_hidden_b, stride_weight_b,
    SCALE_A: tl.constexpr, SOFTCAP_A: tl.constexpr, HAS_BIAS_A: tl.constexpr,
    SCALE_B: tl.constexpr, SOFTCAP_B: tl.constexpr, HAS_BIAS_B: tl.constexpr,
    IDS: tl.constexpr, SLICE: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Writes float32 logits [R, I] of a model, 0 or 1, to the scratch tile, -inf beyond the vocabulary; returns m.

    One loop serves both models: written twice, it would need the registers of two tiles.
    """
    first = model == 0
    size = tl.where(first, size_a, size_b)
    h = tl.arange(0, DEPTH)
    row = first_row + tl.arange(0, ROWS)
    ids = first_id + tl.arange(0, IDS)
    safe_ids = tl.where(ids < vocab, ids, 0).to(tl.int64)
    stride_hidden = tl.where(first, stride_hidden_a, stride_hidden_b)
    stride_weight = tl.where(first, stride_weight_a, stride_weight_b)
    hidden_ptr = tl.where(first, hidden_a_ptr, hidden_b_ptr)
    hidden_ptr += tl.where(row < n_rows, row, 0).to(tl.int64)[:, None] * stride_hidden + h[None, :]
    weight_ptr = tl.where(first, weight_a_ptr, weight_b_ptr) + safe_ids[None, :] * stride_weight + h[:, None]
    z = tl.zeros([ROWS, IDS], tl.float32)
    for _ in range(0, size, DEPTH):
        z = tl.dot(tl.load(hidden_ptr), tl.load(weight_ptr), z)
        hidden_ptr += DEPTH
        weight_ptr += DEPTH
    z = tl.where((ids < vocab)[None, :], z, -INF)
    tl.store(scratch_ptr + tl.arange(0, ROWS)[:, None] * IDS + tl.arange(0, IDS)[None, :], z)
    m = tl.max(z, axis=1)
    if HAS_BIAS_A | HAS_BIAS_B | (SCALE_A != 1) | (SCALE_B != 1) | (SOFTCAP_A != 0) | (SOFTCAP_B != 0):
        tl.debug_barrier()  # a slice is read by other threads than those that wrote it
        bias_ptr = tl.where(first, bias_a_ptr, bias_b_ptr)
        has_bias = tl.where(first, HAS_BIAS_A, HAS_BIAS_B)
        scale, softcap = tl.where(first, SCALE_A, SCALE_B), tl.where(first, SOFTCAP_A, SOFTCAP_B)
        best = tl.full([ROWS, SLICE], -INF, tl.float32)
        for start in range(0, IDS, SLICE):
            z_ptr = slice_ptrs(scratch_ptr, start, IDS, SLICE)
            place = first_id + start + tl.arange(0, SLICE)
            bias = tl.load(bias_ptr + place, mask=(place < vocab) & has_bias, other=0.0)
            z_slice = _capped((tl.load(z_ptr) + bias[None, :]) * scale, softcap)
            best = tl.maximum(best, z_slice)
            tl.store(z_ptr, z_slice)
        m = tl.max(best, axis=1)
    return m


@triton.jit
def _capped(z, cap):
    """c tanh(z / c), with tanh |y| = (1 - t) / (1 + t), t = e^-2|y|; z where c is 0. -inf stays."""
    t = tl.exp2(tl.abs(z) * (-2 * LOG2E / tl.where(cap > 0, cap, 1.0)))
    size = (1 - t) / (1 + t) * cap
    capped = tl.where(z == -INF, z, tl.where(z < 0, -size, size))
    return tl.where(cap > 0, capped, z)


@triton.jit
def slice_ptrs(scratch_ptr, start, IDS: tl.constexpr, SLICE: tl.constexpr):
    """Pointers to columns [start, start + S) of a scratch tile."""
    return scratch_ptr + tl.arange(0, ROWS)[:, None] * IDS + start + tl.arange(0, SLICE)[None, :]


@triton.jit
def zeros(count: tl.constexpr, SLICE: tl.constexpr):
    """``count`` sums of a slice."""
    sums = ()
    for _ in tl.static_range(count):
        sums = sums + (tl.zeros([ROWS, SLICE], tl.float32),)  # type: ignore[assignment]  # noqa: RUF005
    return sums


@triton.jit
def _model_state(
    scratch_ptr, m, bar, token, token_z, first_id, live, out_ptr, n, class_ptr, vocab, n_classes,
    RATES: tl.constexpr, ROOTS: tl.constexpr, ROOT_OF: tl.constexpr, POWERS: tl.constexpr,
    IDS: tl.constexpr, SLICE: tl.constexpr,
):  # fmt: skip
    """One model's slots except MAX, written to ``out_ptr`` [R] in steps of n."""
    centre = tl.where(m > -INF, m, 0.0)[:, None]
    sums = zeros(len(RATES), SLICE)
    weighted, ahead, possible, rest = zeros(4, SLICE)
    for start in range(0, IDS, SLICE):
        z = tl.load(slice_ptrs(scratch_ptr, start, IDS, SLICE))
        ids = (first_id + start + tl.arange(0, SLICE))[None, :]
        # The token's own logit was summed in another order: rounding must not put it ahead of itself.
        before = (z > token_z[:, None]) | ((z == token_z[:, None]) & (ids < token[:, None]))
        ahead += tl.where(before & (ids != token[:, None]), 1.0, 0.0)
        possible += tl.where(z > -INF, 1.0, 0.0)
        x = z - centre
        new = zeros(0, SLICE)
        for j in tl.static_range(len(RATES)):
            u = power(tl.exp2(x * (ROOTS[ROOT_OF[j]] * LOG2E)), POWERS[j])
            new = new + (sums[j] + u,)  # noqa: RUF005
            if j == 0:
                weighted += tl.where(x > -INF, u * x, 0.0)
                rest += tl.where(z < bar[:, None], u, 0.0)
        sums = new
    tl.store(out_ptr + WEIGHTED * n, tl.sum(weighted, axis=1), mask=live)
    tl.store(out_ptr + AHEAD * n, tl.sum(ahead, axis=1), mask=live)
    tl.store(out_ptr + POSSIBLE * n, tl.sum(possible, axis=1), mask=live)
    tl.store(out_ptr + REST * n, tl.sum(rest, axis=1), mask=live)
    for j in tl.static_range(len(RATES)):
        tl.store(out_ptr + (SUM + j) * n, tl.sum(sums[j], axis=1), mask=live)
    for first_class in range(0, n_classes, CLASSES):
        masses = zeros(CLASSES, SLICE)
        for start in range(0, IDS, SLICE):
            ids = first_id + start + tl.arange(0, SLICE)
            token_class = tl.load(class_ptr + ids, mask=ids < vocab, other=0).to(tl.int32)[None, :] - first_class
            e = tl.exp2((tl.load(slice_ptrs(scratch_ptr, start, IDS, SLICE)) - centre) * LOG2E)
            new = zeros(0, SLICE)
            for c in tl.static_range(CLASSES):
                new = new + (masses[c] + tl.where(token_class == c, e, 0.0),)  # noqa: RUF005
            masses = new
        for c in tl.static_range(CLASSES):
            class_mass_ptr = out_ptr + (SUM + len(RATES) + first_class + c) * n
            tl.store(class_mass_ptr, tl.sum(masses[c], axis=1), mask=live & (first_class + c < n_classes))


@triton.jit
def _pair_state(scratch_ptr, m_a, m_b, live, out_ptr, n, IDS: tl.constexpr, SLICE: tl.constexpr):
    """The pair's slots."""
    a_d, b_d, a_dd = zeros(3, SLICE)
    for start in range(0, IDS, SLICE):
        z_a = tl.load(slice_ptrs(scratch_ptr, start, IDS, SLICE))
        z_b = tl.load(slice_ptrs(scratch_ptr + ROWS * IDS, start, IDS, SLICE))
        x_a = finite_x(z_a - tl.where(m_a > -INF, m_a, 0.0)[:, None], z_a)
        x_b = finite_x(z_b - tl.where(m_b > -INF, m_b, 0.0)[:, None], z_b)
        d = x_b - x_a  # -inf where only a allows the token, +inf where only b does, NaN where neither
        finite = finite_gap(d)
        e_d = tl.exp2(x_a * LOG2E) * finite
        a_d += tl.where(d == -INF, -INF, e_d)
        a_dd += e_d * finite
        b_d += tl.where(d == INF, -INF, tl.exp2(x_b * LOG2E) * finite)
    tl.store(out_ptr + A_D * n, tl.sum(a_d, axis=1), mask=live)
    tl.store(out_ptr + B_D * n, tl.sum(b_d, axis=1), mask=live)
    tl.store(out_ptr + A_DD * n, tl.sum(a_dd, axis=1), mask=live)


@triton.jit
def _collect(
    scratch_ptr, scratch_other, bar, token, model_row, live, first_id, count_ptr, keys_ptr, others_ptr,
    listed_token_z_ptr, CAPACITY: tl.constexpr, IDS: tl.constexpr, SLICE: tl.constexpr,
):  # fmt: skip
    """Appends the tokens that reach the bar to the lists ``model_row`` [R]; the count may exceed the capacity."""
    for start in range(0, IDS, SLICE):
        z = tl.load(slice_ptrs(scratch_ptr, start, IDS, SLICE))
        ids = (first_id + start + tl.arange(0, SLICE))[None, :]
        passes = (z >= bar[:, None]) & (z > -INF)
        place = tl.atomic_add(count_ptr + model_row[:, None] + 0 * ids, 1, mask=passes, sem="relaxed")
        passes &= place < CAPACITY
        entry = model_row[:, None] * CAPACITY + place
        tl.store(keys_ptr + entry, pack(z, ids, passes), mask=passes)
        tl.store(others_ptr + entry, tl.load(slice_ptrs(scratch_other, start, IDS, SLICE)), mask=passes)
        here = (ids == token[:, None]) & live[:, None]
        tl.store(listed_token_z_ptr + model_row[:, None] + 0 * ids, z, mask=here)
