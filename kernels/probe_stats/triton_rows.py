"""What is known of a row once its parts are merged, and the constant about which its second sweep takes moments.

Legend: a is the baseline, b the trained model; x = z - M, a logit less its row's maximum; d = log p_b - log p_a.
"""

import triton
import triton.language as tl

from .triton_math import INF, LOG2E, SATURATED

# One model's values of a row for later kernels, float32 [N, ROW_SLOTS].
ROW_MAX = tl.constexpr(0)
LOG_SUM = tl.constexpr(1)  # log of sum of exp(z - M); NaN marks an invalid row
ROW_POSSIBLE = tl.constexpr(2)
ROW_REST = tl.constexpr(3)  # mass outside the top list
ROW_SLOTS = tl.constexpr(4)

# A column may begin anywhere in its packed buffer: kernels are not specialised on its alignment.
COLUMNS = ["token_z_ptr", "ce_terms_ptr", "kept_mass_ptr", "top_a_ptr", "top_b_ptr", "size_a_ptr", "size_b_ptr"]

DIRECT_KL = tl.constexpr(0.01)  # from here on the error of the direct second sweep, 3e-7, does not matter
LARGEST_SHIFT = tl.constexpr(0.5)  # of d at the likeliest token; moments about 0 lose accuracy beyond it


@triton.jit(do_not_specialize=["n_rows"])
def token_logits(a_ptr, b_ptr, token_ptr, token_z_ptr, n_rows, stride_a, stride_b, HAS_B: tl.constexpr):
    """Each model's logit of a row's token, float32 [models, N]."""
    row = tl.program_id(0).to(tl.int64)
    token = tl.load(token_ptr + row)
    tl.store(token_z_ptr + row, tl.load(a_ptr + row * stride_a + token).to(tl.float32))
    if HAS_B:
        tl.store(token_z_ptr + n_rows + row, tl.load(b_ptr + row * stride_b + token).to(tl.float32))


@triton.jit(do_not_specialize_on_alignment=COLUMNS)
def choose_pivot(
    a_ptr, b_ptr, row_a_ptr, row_b_ptr, top_a_ptr, pivot_ptr, stride_a, stride_b, K: tl.constexpr, KP: tl.constexpr
):
    """About what the second sweep takes the moments of x_b - x_a in this row, to float32 [N].

    The ratio of the normalisers, where d is 0, if the divergence may be small; x_b - x_a at the baseline's top token if
    the list's part of KL(a || b), every term of which is at least 0, shows that it is not, or d is large there.
    top_a_ptr: int64 [N, K].
    """
    row = tl.program_id(0).to(tl.int64)
    row_a_ptr += row * ROW_SLOTS
    row_b_ptr += row * ROW_SLOTS
    log_sum_a, log_sum_b = tl.load(row_a_ptr + LOG_SUM), tl.load(row_b_ptr + LOG_SUM)
    slot = tl.arange(0, KP)
    ids = tl.load(top_a_ptr + row * K + slot, mask=slot < K, other=-1)
    z_a = tl.load(a_ptr + row * stride_a + ids, mask=ids >= 0, other=-INF).to(tl.float32)
    z_b = tl.load(b_ptr + row * stride_b + ids, mask=ids >= 0, other=-INF).to(tl.float32)
    x_a, x_b = z_a - tl.load(row_a_ptr + ROW_MAX), z_b - tl.load(row_b_ptr + ROW_MAX)
    p_a = tl.exp2((x_a - log_sum_a) * LOG2E)
    d = (x_b - log_sum_b) - (x_a - log_sum_a)
    terms = tl.where((ids >= 0) & (tl.abs(d) < 60), p_a * (tl.exp2(d * LOG2E) - 1 - d), 0.0)
    is_first = slot == 0
    top_d = tl.sum(tl.where(is_first, d, 0.0))
    top_gap = tl.sum(tl.where(is_first & (z_b > -INF), tl.maximum(x_b, -SATURATED), 0.0))  # x_a is 0 there
    is_small = (tl.sum(terms) < DIRECT_KL) & (tl.abs(top_d) < LARGEST_SHIFT)
    tl.store(pivot_ptr + row, tl.where(is_small, log_sum_b - log_sum_a, top_gap))
