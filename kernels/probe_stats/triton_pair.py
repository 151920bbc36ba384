"""The columns of the pair: partial sums merged, and the columns of two top lists.

Legend: a is the baseline, b the trained model; x = z - M, a model's logit below its row maximum; log_sum = log of sum
of exp(x); d = log p_b - log p_a; S and q, the baseline's support and distribution at ``spec.train_sampling``. All in
float64: it is a handful of numbers per row.
"""

import triton
import triton.language as tl

from .triton_math import (
    A_D,
    A_DD,
    B_D,
    DIVERGENCES,
    GAP,
    GAP_SQUARED,
    INF,
    JS,
    KL_AB,
    KL_BA,
    LOG2E,
    MAX,
    SUM,
    TV,
    finite_x,
    scaled,
)
from .triton_rows import COLUMNS, LOG_SUM, ROW_MAX, ROW_REST, ROW_SLOTS
from .triton_top import support


@triton.jit(do_not_specialize_on_alignment=COLUMNS)
def merge_one_sweep(
    state_ptr, row_a_ptr, row_b_ptr, kl_base_trained_ptr, kl_trained_base_ptr, js_ptr, tv_ptr, logratio_var_ptr,
    mean_gap_ptr, chunks, slots,
    model_slots, CHUNKS: tl.constexpr,
):  # fmt: skip
    """Divergences of one row from the first sweep alone; JS and TV are NaN. state_ptr: [N, slots, chunks].

    mean_gap_ptr: float64 [N], the baseline's mean of x_b - x_a.
    """
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.arange(0, CHUNKS)
    live = chunk < chunks
    a_ptr = state_ptr + row * slots * chunks + chunk
    b_ptr = a_ptr + model_slots * chunks
    pair_ptr = b_ptr + model_slots * chunks
    x_a = tl.load(a_ptr + MAX * chunks, mask=live, other=-INF) - tl.load(row_a_ptr + row * ROW_SLOTS + ROW_MAX)
    x_b = tl.load(b_ptr + MAX * chunks, mask=live, other=-INF) - tl.load(row_b_ptr + row * ROW_SLOTS + ROW_MAX)
    w_a, w_b = tl.exp2(x_a * LOG2E).to(tl.float64), tl.exp2(x_b * LOG2E).to(tl.float64)
    sum_a = tl.load(a_ptr + SUM * chunks, mask=live, other=0.0)
    sum_b = tl.load(b_ptr + SUM * chunks, mask=live, other=0.0)
    a_d = tl.load(pair_ptr + A_D * chunks, mask=live, other=0.0)
    b_d = tl.load(pair_ptr + B_D * chunks, mask=live, other=0.0)
    a_dd = tl.load(pair_ptr + A_DD * chunks, mask=live, other=0.0)

    # A chunk took d relative to its own maxima; `offset` converts it to those of the row.
    offset = tl.where((x_a > -INF) & (x_b > -INF), x_b - x_a, 0.0).to(tl.float64)
    total_a, total_b = tl.sum(w_a * sum_a), tl.sum(w_b * sum_b)
    mean_a = tl.sum(scaled(w_a, a_d + offset * sum_a)) / total_a
    mean_b = tl.sum(scaled(w_b, b_d + offset * sum_b)) / total_b
    square = tl.sum(scaled(w_a, a_dd + offset * (2 * a_d + offset * sum_a))) / total_a
    log_ratio = tl.log(total_b) - tl.log(total_a)
    kl_ab, kl_ba = _at_least_0(log_ratio - mean_a), _at_least_0(mean_b - log_ratio)
    forbidden_by_b, forbidden_by_a = tl.min(a_d) == -INF, tl.min(b_d) == -INF

    valid = (total_a > 0) & (total_b > 0)
    tl.store(kl_base_trained_ptr + row, tl.where(valid, tl.where(forbidden_by_b, INF, kl_ab), float("nan")))
    tl.store(kl_trained_base_ptr + row, tl.where(valid, tl.where(forbidden_by_a, INF, kl_ba), float("nan")))
    tl.store(js_ptr + row, float("nan"))
    tl.store(tv_ptr + row, float("nan"))
    logratio_var = tl.where(forbidden_by_b, float("nan"), _at_least_0(square - mean_a * mean_a))
    tl.store(logratio_var_ptr + row, tl.where(valid, logratio_var, float("nan")))
    tl.store(mean_gap_ptr + row, mean_a)


@triton.jit
def _at_least_0(value):
    """Rounding below 0 removed; NaN stays."""
    return tl.where(value < 0, 0.0, value)


@triton.jit(do_not_specialize_on_alignment=COLUMNS)
def merge_two_sweeps(
    state_ptr, row_a_ptr, row_b_ptr, pivot_ptr, kl_base_trained_ptr, kl_trained_base_ptr, js_ptr, tv_ptr,
    logratio_var_ptr, mean_gap_ptr,
    chunks, CHUNKS: tl.constexpr,
):  # fmt: skip
    """Divergences of one row from the second sweep. state_ptr: [N, DIVERGENCES, chunks]; the rest as above."""
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.arange(0, CHUNKS)
    live = chunk < chunks
    state_ptr += row * DIVERGENCES * chunks + chunk
    kl_ab = tl.sum(tl.load(state_ptr + KL_AB * chunks, mask=live, other=0.0).to(tl.float64))
    kl_ba = tl.sum(tl.load(state_ptr + KL_BA * chunks, mask=live, other=0.0).to(tl.float64))
    js = tl.sum(tl.load(state_ptr + JS * chunks, mask=live, other=0.0).to(tl.float64))
    tv = tl.sum(tl.load(state_ptr + TV * chunks, mask=live, other=0.0).to(tl.float64))
    mean = tl.sum(tl.load(state_ptr + GAP * chunks, mask=live, other=0.0).to(tl.float64))
    square = tl.sum(tl.load(state_ptr + GAP_SQUARED * chunks, mask=live, other=0.0).to(tl.float64))

    log_sums = tl.load(row_a_ptr + row * ROW_SLOTS + LOG_SUM) + tl.load(row_b_ptr + row * ROW_SLOTS + LOG_SUM)
    valid = log_sums == log_sums  # NaN in an invalid row
    tl.store(kl_base_trained_ptr + row, tl.where(valid, kl_ab, float("nan")))
    tl.store(kl_trained_base_ptr + row, tl.where(valid, kl_ba, float("nan")))
    tl.store(js_ptr + row, tl.where(valid, js, float("nan")))
    tl.store(tv_ptr + row, tl.where(valid, tv, float("nan")))
    logratio_var = tl.where(kl_ab == INF, float("nan"), _at_least_0(square - mean * mean))
    tl.store(logratio_var_ptr + row, tl.where(valid, logratio_var, float("nan")))
    tl.store(mean_gap_ptr + row, mean + tl.load(pivot_ptr + row))


@triton.jit(do_not_specialize_on_alignment=COLUMNS)
def compare_lists(
    a_ptr, b_ptr, row_a_ptr, row_b_ptr, top_a_ptr, top_b_ptr, size_a_ptr, size_b_ptr, kl_base_trained_ptr,
    logratio_var_ptr, mean_gap_ptr, trained_logprobs_at_base_top_ptr, base_logprobs_at_trained_top_ptr,
    support_overlap_ptr, ssd_cov_ptr, ssd_var_ptr, ssd_alignment_ptr, ce_terms_ptr, kept_mass_ptr, stride_a, stride_b,
    K: tl.constexpr, KP: tl.constexpr,
    TEMPERATURE: tl.constexpr, TOP_K: tl.constexpr, TOP_P: tl.constexpr,
):  # fmt: skip
    """The columns of one row that follow from two top lists. top_*_ptr: int64 [N, K]; size_*_ptr: support sizes, int64
    [N].

    ce_terms_ptr: float32 [N, 2, 3], CE_TERM_COLUMNS; kept_mass_ptr: float32 [N, 2], KEPT_MASS_COLUMNS.
    TEMPERATURE, TOP_K, TOP_P: ``spec.train_sampling``, with 1 <= TOP_K <= K.
    """
    row = tl.program_id(0).to(tl.int64)
    slot = tl.arange(0, KP)
    a_ptr += row * stride_a
    b_ptr += row * stride_b
    row_a_ptr += row * ROW_SLOTS
    row_b_ptr += row * ROW_SLOTS
    max_a, max_b = tl.load(row_a_ptr + ROW_MAX), tl.load(row_b_ptr + ROW_MAX)
    log_sum_a, log_sum_b = tl.load(row_a_ptr + LOG_SUM), tl.load(row_b_ptr + LOG_SUM)
    valid = log_sum_a + log_sum_b == log_sum_a + log_sum_b

    ids_a = tl.load(top_a_ptr + row * K + slot, mask=slot < K, other=-1)
    z_a, z_b = _logits_at(a_ptr, ids_a), _logits_at(b_ptr, ids_a)
    log_p_a, log_p_b = z_a - max_a - log_sum_a, z_b - max_b - log_sum_b
    tl.store(trained_logprobs_at_base_top_ptr + row * K + slot, tl.where(valid, log_p_b, float("nan")), mask=slot < K)
    ids_b = tl.load(top_b_ptr + row * K + slot, mask=slot < K, other=-1)
    log_p_a_at_b = _logits_at(a_ptr, ids_b) - max_a - log_sum_a
    tl.store(
        base_logprobs_at_trained_top_ptr + row * K + slot, tl.where(valid, log_p_a_at_b, float("nan")), mask=slot < K
    )

    # A token is in b's support unless it comes after the last token of that support.
    last_id = tl.load(top_b_ptr + row * K + tl.maximum(tl.load(size_b_ptr + row), 1) - 1)
    last_z = tl.load(b_ptr + tl.maximum(last_id, 0)).to(tl.float32)
    shared = (z_b > last_z) | ((z_b == last_z) & (ids_a <= last_id))
    overlap = tl.sum((shared & (slot < tl.load(size_a_ptr + row))).to(tl.int64))
    tl.store(support_overlap_ptr + row, tl.where(valid, overlap, -1))

    size, _, w = support(z_a, slot, TEMPERATURE, TOP_K, TOP_P)
    inside = slot < size
    q = w / tl.sum(w)
    p_a, p_b = tl.exp2(log_p_a * LOG2E).to(tl.float64), tl.exp2(log_p_b * LOG2E).to(tl.float64)
    kept_a, kept_b = tl.sum(tl.where(inside, p_a, 0.0)), tl.sum(tl.where(inside, p_b, 0.0))
    tl.store(kept_mass_ptr + row * 2, tl.where(valid, kept_a, float("nan")))
    tl.store(kept_mass_ptr + row * 2 + 1, tl.where(valid, kept_b, float("nan")))

    # Cov_a(d, q / p_a - 1) is E_q[d] - E_a[d]: normalisers cancel, so the difference is taken between the logits alone.
    # It is rounded as in the sweep, so that the gap of a sure token cancels to the last bit.
    gap = finite_x(z_b - max_b, z_b) - finite_x(z_a - max_a, z_a)
    gap = tl.where(inside & (z_b > -INF), gap, 0.0)
    ssd_cov = tl.sum(q * gap) - tl.load(mean_gap_ptr + row)
    ssd_cov = tl.where(tl.load(kl_base_trained_ptr + row) == INF, float("nan"), ssd_cov)
    # sum of (q - p)^2 / p within S, of p outside: as a squared difference of roots, it is right however small p is.
    log_q = tl.where(inside, (z_a - max_a) * (1 / TEMPERATURE) - tl.log(tl.sum(w)).to(tl.float32), 0.0)
    half = 0.5 * tl.where(inside, log_p_a, 0.0)
    root = tl.exp2((log_q - half) * LOG2E) - tl.exp2(half * LOG2E)
    outside = tl.sum(tl.where(inside, 0.0, p_a)) + tl.load(row_a_ptr + ROW_REST)
    ssd_var = tl.sum(tl.where(inside, root * root, 0.0).to(tl.float64)) + outside
    variance = tl.load(logratio_var_ptr + row).to(tl.float64) * ssd_var
    alignment = ssd_cov / tl.sqrt(tl.where(variance > 0, variance, float("nan")))
    alignment = tl.where(alignment > 1, 1.0, tl.where(alignment < -1, -1.0, alignment))
    tl.store(ssd_cov_ptr + row, tl.where(valid, ssd_cov, float("nan")))
    tl.store(ssd_var_ptr + row, tl.where(valid, ssd_var, float("nan")))
    tl.store(ssd_alignment_ptr + row, tl.where(valid, alignment, float("nan")))

    ce_terms_ptr += row * 6
    _store_ce_terms(ce_terms_ptr, z_a, q, log_q, inside, max_a, log_sum_a, valid, TEMPERATURE)
    _store_ce_terms(ce_terms_ptr + 3, z_b, q, log_q, inside, max_b, log_sum_b, valid, TEMPERATURE)


@triton.jit
def _logits_at(z_ptr, ids):
    return tl.where(ids >= 0, tl.load(z_ptr + ids, mask=ids >= 0, other=0).to(tl.float32), -INF)


@triton.jit
def _store_ce_terms(ce_terms_ptr, z, q, log_q, inside, row_max, log_sum, valid, TEMPERATURE: tl.constexpr):
    """-log p(S), -T log sum r^(1/T) and T KL(q || r tempered by T), with r the model restricted to S.

    -log p(S) is finite however small the mass. Where the model forbids a token of S, the last is +inf.
    """
    forbidden = tl.max((inside & (z == -INF)).to(tl.int32)) > 0
    z = tl.where(inside, z, -INF)
    largest = tl.max(z)
    x = z - tl.where(largest > -INF, largest, 0.0)
    log_total = tl.log(tl.sum(tl.exp2(x * LOG2E).to(tl.float64)))
    log_r = x - log_total
    log_power = tl.log(tl.sum(tl.exp2((log_r * (1 / TEMPERATURE * LOG2E)).to(tl.float32)).to(tl.float64)))
    gap = log_q - (log_r * (1 / TEMPERATURE) - log_power)
    divergence = TEMPERATURE * tl.sum(tl.where(q > 0, q * gap, 0.0))
    tl.store(ce_terms_ptr, tl.where(valid, log_sum - (largest - row_max) - log_total, float("nan")))
    tl.store(ce_terms_ptr + 1, tl.where(valid, -TEMPERATURE * log_power, float("nan")))
    tl.store(ce_terms_ptr + 2, tl.where(valid, tl.where(forbidden, INF, divergence), float("nan")))
