"""The second pass over the tiles, with the normalisers known: JS, TV and exact divergences.

Legend: a is the baseline, b the trained model; x, a logit less its row's maximum.
"""

import triton
import triton.language as tl

from ..probe_stats.triton_math import (
    DIVERGENCES,
    GAP,
    GAP_SQUARED,
    INF,
    JS,
    KL_AB,
    KL_BA,
    LOG2E,
    TV,
    divergence_terms,
    finite_x,
)
from .triton_tiles import ROWS, logits_tile, slice_ptrs, zeros


@triton.jit(do_not_specialize=["n_rows"])
def tile_divergences(
    hidden_a_ptr, weight_a_ptr, bias_a_ptr, hidden_b_ptr, weight_b_ptr, bias_b_ptr, max_ptr, log_sum_ptr, pivot_ptr,
    scratch_ptr, state_ptr, n_rows, vocab, size_a, size_b, stride_hidden_a, stride_weight_a, stride_hidden_b,
    stride_weight_b,
    SCALE_A: tl.constexpr, SOFTCAP_A: tl.constexpr, HAS_BIAS_A: tl.constexpr,
    SCALE_B: tl.constexpr, SOFTCAP_B: tl.constexpr, HAS_BIAS_B: tl.constexpr,
    IDS: tl.constexpr, SLICE: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Partial divergences of every tile, with the normalisers known: state_ptr float32 [tiles, DIVERGENCES, N].

    max_ptr, log_sum_ptr: float32 [2, N]; pivot_ptr: float32 [N], about which the moments of the gap are taken. The
    logits are those of ``tile_states`` to the last bit.
    """
    n = n_rows.to(tl.int64)
    row_tiles = tl.cdiv(n_rows, ROWS)
    scratch_ptr += tl.program_id(0).to(tl.int64) * (2 * ROWS * IDS)
    for index in range(tl.program_id(0), row_tiles * tl.cdiv(vocab, IDS), tl.num_programs(0)):
        tile = (index // row_tiles).to(tl.int64)
        first_row, first_id = (index % row_tiles) * ROWS, (index // row_tiles) * IDS
        row = first_row + tl.arange(0, ROWS)
        live = row < n_rows
        row = tl.where(live, row, 0).to(tl.int64)
        for model in range(2):
            logits_tile(
                scratch_ptr + model * (ROWS * IDS), model, hidden_a_ptr, weight_a_ptr, bias_a_ptr, hidden_b_ptr,
                weight_b_ptr, bias_b_ptr, first_row, first_id, n_rows, vocab, size_a, size_b, stride_hidden_a,
                stride_weight_a, stride_hidden_b, stride_weight_b, SCALE_A, SOFTCAP_A, HAS_BIAS_A, SCALE_B, SOFTCAP_B,
                HAS_BIAS_B, IDS, SLICE, DEPTH,
            )  # fmt: skip
        tl.debug_barrier()
        max_a, max_b = tl.load(max_ptr + row)[:, None], tl.load(max_ptr + n + row)[:, None]
        log_sum_a, log_sum_b = tl.load(log_sum_ptr + row)[:, None], tl.load(log_sum_ptr + n + row)[:, None]
        pivot = tl.load(pivot_ptr + row)[:, None]
        kl_ab, kl_ba, js, tv, first_moment, second_moment = zeros(6, SLICE)
        for start in range(0, IDS, SLICE):
            z_a = tl.load(slice_ptrs(scratch_ptr, start, IDS, SLICE))
            z_b = tl.load(slice_ptrs(scratch_ptr + ROWS * IDS, start, IDS, SLICE))
            x_a, x_b = finite_x(z_a - max_a, z_a), finite_x(z_b - max_b, z_b)
            p_a, p_b = tl.exp2((x_a - log_sum_a) * LOG2E), tl.exp2((x_b - log_sum_b) * LOG2E)
            gap = x_b - x_a  # -inf where only a allows the token, +inf where only b does, NaN where neither
            from_pivot = tl.where(tl.abs(gap) < INF, gap - pivot, 0.0)
            first_moment += p_a * from_pivot
            second_moment += p_a * from_pivot * from_pivot
            terms = divergence_terms(gap, log_sum_b - log_sum_a, p_a, p_b)
            kl_ab += terms[0]
            kl_ba += terms[1]
            js += terms[2]
            tv += terms[3]
        out_ptr = state_ptr + tile * DIVERGENCES * n + row
        tl.store(out_ptr + KL_AB * n, tl.sum(kl_ab, axis=1), mask=live)
        tl.store(out_ptr + KL_BA * n, tl.sum(kl_ba, axis=1), mask=live)
        tl.store(out_ptr + JS * n, tl.sum(js, axis=1), mask=live)
        tl.store(out_ptr + TV * n, tl.sum(tv, axis=1), mask=live)
        tl.store(out_ptr + GAP * n, tl.sum(first_moment, axis=1), mask=live)
        tl.store(out_ptr + GAP_SQUARED * n, tl.sum(second_moment, axis=1), mask=live)
        tl.debug_barrier()
