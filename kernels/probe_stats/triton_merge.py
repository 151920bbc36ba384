"""The parts of a row merged, in float64 and always in the same order, so that results repeat to the last bit."""

import triton
import triton.language as tl

from .triton_math import AHEAD, INF, LOG2E, MAX, POSSIBLE, SUM, WEIGHTED
from .triton_rows import COLUMNS, LOG_SUM, ROW_MAX, ROW_POSSIBLE, ROW_SLOTS


@triton.jit(do_not_specialize_on_alignment=COLUMNS)
def merge_model(
    token_z_ptr, state_ptr, row_ptr, lse_ptr, entropy_ptr, token_logprob_ptr, token_rank_ptr, lse_T_ptr,
    parts, slots,
    RATES: tl.constexpr, RATE_OF: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """One row of one model: its parts merged into ``row_ptr`` [N, ROW_SLOTS] and the columns that are ready.

    token_z_ptr: float32 [N]. state_ptr points at the model's first slot. RATE_OF[i]: which of RATES is that of
    temperature i. PARTS: a power of two, at least ``parts``.
    """
    row = tl.program_id(0).to(tl.int64)
    part = tl.arange(0, PARTS)
    live = part < parts
    state_ptr += row * slots * parts + part
    m = tl.load(state_ptr + MAX * parts, mask=live, other=-INF)
    row_max = tl.max(m)
    shift = tl.where(m > -INF, m - row_max, -INF)
    scale = tl.exp2(shift * LOG2E)

    sums = tl.load(state_ptr + SUM * parts, mask=live, other=0.0)
    total = tl.sum((sums * scale).to(tl.float64))
    weighted = tl.load(state_ptr + WEIGHTED * parts, mask=live, other=0.0) + sums * tl.where(shift > -INF, shift, 0.0)
    ahead = tl.sum(tl.load(state_ptr + AHEAD * parts, mask=live, other=0.0).to(tl.int64))
    possible = tl.sum(tl.load(state_ptr + POSSIBLE * parts, mask=live, other=0.0).to(tl.int32))
    valid = total > 0  # false for NaN
    log_sum = tl.where(valid, tl.log(total), float("nan"))

    row_ptr += row * ROW_SLOTS
    tl.store(row_ptr + ROW_MAX, row_max)
    tl.store(row_ptr + LOG_SUM, log_sum)
    tl.store(row_ptr + ROW_POSSIBLE, possible.to(tl.float32))
    tl.store(lse_ptr + row, row_max + log_sum)
    tl.store(entropy_ptr + row, log_sum - tl.sum((weighted * scale).to(tl.float64)) / total)
    tl.store(token_logprob_ptr + row, (tl.load(token_z_ptr + row) - row_max) - log_sum)
    tl.store(token_rank_ptr + row, tl.where(valid, ahead, -1))
    for i in tl.static_range(len(RATE_OF)):
        rate = RATES[RATE_OF[i]]
        partial = tl.load(state_ptr + (SUM + RATE_OF[i]) * parts, mask=live, other=0.0)
        tempered = tl.sum((partial * tl.exp2(shift * (rate * LOG2E))).to(tl.float64))
        lse_t = tl.where(valid, row_max * rate + tl.log(tempered), float("nan"))
        tl.store(lse_T_ptr + row * len(RATE_OF) + i, lse_t)
