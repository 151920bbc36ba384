"""The kernels that read the vocabulary, and the merge of their partial sums.

A program takes one CHUNK of one row, both models, without a loop: CHUNK logits are 16 registers per thread and model,
and every sum is taken relative to the chunk's own maximum. Its partial sums, float32, go to a workspace
[N, slots, chunks]: a slot's values of one row are contiguous, since the merge reads a slot at a time. Chunks are
merged in float64, always in the same order, so results repeat to the last bit.

Cost of a logit, counted in the machine code for sm_90 in bf16. First sweep: 2 bytes, 2 exponentials at the default
temperatures (every 1/T is a whole multiple of 1/2 or 1/1.4, and a power costs a multiplication), 66 instructions per
thread with the reductions. Second sweep: 2 bytes, 1.5 exponentials, 60 instructions. While memory delivers a logit at
3.3 TB/s, the 132 SMs of an H100 issue 17 instructions for it: arithmetic is the limit here, so nothing
unneeded is computed (NaN and +inf show in the sums, pair sums wait for the second sweep).

Legend: a is the baseline, b the trained model, z logit, m chunk maximum, M row maximum, x = z - m or z - M (never above
0), d = log p_b - log p_a, in the first sweep up to a constant of the chunk, rate = 1 / T.
"""

from dataclasses import fields

import triton
import triton.language as tl

from .schema import ModelStats, PairStats
from .triton_math import (
    A_D,
    A_DD,
    AHEAD,
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
    POSSIBLE,
    SATURATED,
    SUM,
    TV,
    WEIGHTED,
    divergence_terms,
    finite_gap,
    finite_x,
    power,
)

GROUP = tl.constexpr(256)  # consecutive tokens that share one maximum, from which the top list takes its candidates
CHUNK = tl.constexpr(2048)

# One model's values of a row for later kernels, float32 [N, ROW_SLOTS].
ROW_MAX = tl.constexpr(0)
LOG_SUM = tl.constexpr(1)  # log of sum of exp(z - M); NaN marks an invalid row
ROW_POSSIBLE = tl.constexpr(2)
ROW_REST = tl.constexpr(3)  # mass outside the top list
ROW_SLOTS = tl.constexpr(4)

# A column may begin anywhere in its packed buffer: kernels are not specialised on its alignment.
COLUMNS = ["token_z_ptr", "ce_terms_ptr", "kept_mass_ptr", "top_a_ptr", "top_b_ptr", "size_a_ptr", "size_b_ptr"]
COLUMNS += [f"{field.name}_ptr" for group in (ModelStats, PairStats) for field in fields(group)]


@triton.jit
def load_logits(ptr, ids, vocab):
    """float32 logits, -inf beyond the vocabulary."""
    return tl.load(ptr + ids, mask=ids < vocab, other=float("-inf")).to(tl.float32)


@triton.jit(do_not_specialize=["n_rows"])
def token_logits(a_ptr, b_ptr, token_ptr, token_z_ptr, n_rows, stride_a, stride_b, HAS_B: tl.constexpr):
    """Each model's logit of a row's token, float32 [models, N]."""
    row = tl.program_id(0).to(tl.int64)
    token = tl.load(token_ptr + row)
    tl.store(token_z_ptr + row, tl.load(a_ptr + row * stride_a + token).to(tl.float32))
    if HAS_B:
        tl.store(token_z_ptr + n_rows + row, tl.load(b_ptr + row * stride_b + token).to(tl.float32))


@triton.jit(do_not_specialize=["n_rows"])
def first_sweep(
    a_ptr, b_ptr, token_ptr, token_z_ptr, class_ptr, state_ptr, group_max_ptr, group_sum_ptr,
    n_rows, vocab, chunks, stride_a, stride_b, slots, model_slots, n_classes,
    RATES: tl.constexpr, ROOTS: tl.constexpr, ROOT_OF: tl.constexpr, POWERS: tl.constexpr,
    HAS_B: tl.constexpr, PAIR_SUMS: tl.constexpr,
):  # fmt: skip
    """Partial states of one chunk, and (maximum, sum of exp(z - m)) of each GROUP in it.

    a_ptr, b_ptr: logits [N, V]. token_ptr: int64 [N], which may lie outside 0..V where V is a part of the vocabulary;
    token_z_ptr: its logits, float32 [models, N]. class_ptr: uint8 [V], unread when n_classes is 0.
    state_ptr: float32 [N, slots, chunks]. group_*_ptr: float32 [models, N, chunks * CHUNK / GROUP].
    RATES[j] = POWERS[j] * ROOTS[ROOT_OF[j]], so that one exponential per root is enough.
    """
    GROUPS: tl.constexpr = CHUNK // GROUP
    row = (tl.program_id(0) // chunks).to(tl.int64)
    chunk = tl.program_id(0) % chunks
    token = tl.minimum(tl.load(token_ptr + row), vocab)  # ids beyond the vocabulary are never ahead of it
    group = tl.arange(0, GROUPS)
    ids = chunk * CHUNK + group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    state_ptr += row * slots * chunks + chunk
    group_offset = (row * chunks + chunk) * GROUPS + group

    x_a, e_a = _model_partials(
        a_ptr + row * stride_a, ids, token, tl.load(token_z_ptr + row), class_ptr, state_ptr, group_max_ptr +
        group_offset, group_sum_ptr + group_offset, vocab, chunks, n_classes, RATES, ROOTS, ROOT_OF, POWERS,
    )  # fmt: skip
    if HAS_B:
        group_offset += n_rows.to(tl.int64) * chunks * GROUPS
        state_ptr += model_slots * chunks
        x_b, e_b = _model_partials(
            b_ptr + row * stride_b, ids, token, tl.load(token_z_ptr + n_rows + row), class_ptr, state_ptr,
            group_max_ptr + group_offset, group_sum_ptr + group_offset, vocab, chunks, n_classes, RATES, ROOTS, ROOT_OF,
            POWERS,
        )  # fmt: skip
        if PAIR_SUMS:
            state_ptr += model_slots * chunks
            d = x_b - x_a  # -inf where only a allows the token, +inf where only b does, NaN where neither
            finite = finite_gap(d)
            tl.store(state_ptr + A_D * chunks, tl.sum(tl.where(d == -INF, -INF, e_a * finite)))
            tl.store(state_ptr + B_D * chunks, tl.sum(tl.where(d == INF, -INF, e_b * finite)))
            tl.store(state_ptr + A_DD * chunks, tl.sum(e_a * finite * finite))


@triton.jit
def _model_partials(
    z_ptr, ids, token, z_token, class_ptr, state_ptr, group_max_ptr, group_sum_ptr, vocab, chunks, n_classes,
    RATES: tl.constexpr, ROOTS: tl.constexpr, ROOT_OF: tl.constexpr, POWERS: tl.constexpr,
):  # fmt: skip
    """One model's slots; returns x and exp(x). NaN and +inf need no test: they make the sums NaN."""
    z = load_logits(z_ptr, ids, vocab)
    ahead = (z > z_token) | ((z == z_token) & (ids < token))
    group_max = tl.max(z, axis=1)
    m = tl.max(group_max)
    x = z - tl.where(m > -INF, m, 0.0)
    e = power(tl.exp2(x * (ROOTS[ROOT_OF[0]] * LOG2E)), POWERS[0])

    tl.store(group_max_ptr, group_max)
    tl.store(group_sum_ptr, tl.sum(e, axis=1))
    tl.store(state_ptr + MAX * chunks, m)
    tl.store(state_ptr + WEIGHTED * chunks, tl.sum(tl.where(x > -INF, e * x, 0.0)))
    tl.store(state_ptr + AHEAD * chunks, tl.sum(ahead.to(tl.int32)).to(tl.float32))
    tl.store(state_ptr + POSSIBLE * chunks, tl.sum((z > -INF).to(tl.int32)).to(tl.float32))
    for root in tl.static_range(len(ROOTS)):
        u = tl.exp2(x * (ROOTS[root] * LOG2E))
        for j in tl.static_range(len(RATES)):
            if ROOT_OF[j] == root:
                tl.store(state_ptr + (SUM + j) * chunks, tl.sum(power(u, POWERS[j])))
    if n_classes > 0:
        token_class = tl.load(class_ptr + ids, mask=ids < vocab, other=0).to(tl.int32)
        for c in range(n_classes):
            tl.store(state_ptr + (SUM + len(RATES) + c) * chunks, tl.sum(tl.where(token_class == c, e, 0.0)))
    return finite_x(x, z), e


@triton.jit(do_not_specialize_on_alignment=COLUMNS)
def merge_model(
    token_z_ptr, state_ptr, row_ptr, lse_ptr, entropy_ptr, token_logprob_ptr, token_rank_ptr, lse_T_ptr,
    class_mass_ptr, chunks, slots, n_classes,
    RATES: tl.constexpr, RATE_OF: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """One row of one model: its chunks merged into ``row_ptr`` [N, ROW_SLOTS] and the columns that are ready.

    token_z_ptr: float32 [N]. state_ptr points at the model's first slot. RATE_OF[i]: which of RATES is that of
    temperature i. CHUNKS: a power of two, at least ``chunks``.
    """
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.arange(0, CHUNKS)
    live = chunk < chunks
    state_ptr += row * slots * chunks + chunk
    m = tl.load(state_ptr + MAX * chunks, mask=live, other=-INF)
    row_max = tl.max(m)
    shift = tl.where(m > -INF, m - row_max, -INF)
    scale = tl.exp2(shift * LOG2E)

    sums = tl.load(state_ptr + SUM * chunks, mask=live, other=0.0)
    total = tl.sum((sums * scale).to(tl.float64))
    weighted = tl.load(state_ptr + WEIGHTED * chunks, mask=live, other=0.0) + sums * tl.where(shift > -INF, shift, 0.0)
    ahead = tl.sum(tl.load(state_ptr + AHEAD * chunks, mask=live, other=0.0).to(tl.int64))
    possible = tl.sum(tl.load(state_ptr + POSSIBLE * chunks, mask=live, other=0.0).to(tl.int32))
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
        partial = tl.load(state_ptr + (SUM + RATE_OF[i]) * chunks, mask=live, other=0.0)
        tempered = tl.sum((partial * tl.exp2(shift * (rate * LOG2E))).to(tl.float64))
        lse_t = tl.where(valid, row_max * rate + tl.log(tempered), float("nan"))
        tl.store(lse_T_ptr + row * len(RATE_OF) + i, lse_t)
    for c in range(n_classes):
        mass = tl.load(state_ptr + (SUM + len(RATES) + c) * chunks, mask=live, other=0.0)
        tl.store(class_mass_ptr + row * n_classes + c, tl.sum((mass * scale).to(tl.float64)) / total)


@triton.jit(do_not_specialize_on_alignment=COLUMNS)
def gap_at_top(b_ptr, row_b_ptr, top_a_ptr, pivot_ptr, stride_b, K: tl.constexpr):
    """x_b - x_a at the baseline's top token, where x_a is 0, to float32 [N]; 0 where b forbids it.

    top_a_ptr: int64 [N, K].
    """
    row = tl.program_id(0).to(tl.int64)
    z_b = tl.load(b_ptr + row * stride_b + tl.maximum(tl.load(top_a_ptr + row * K), 0)).to(tl.float32)
    x_b = z_b - tl.load(row_b_ptr + row * ROW_SLOTS + ROW_MAX)
    tl.store(pivot_ptr + row, tl.where(z_b > -INF, tl.maximum(x_b, -SATURATED), 0.0))


@triton.jit
def second_sweep(a_ptr, b_ptr, row_a_ptr, row_b_ptr, pivot_ptr, state_ptr, vocab, chunks, stride_a, stride_b):
    """Partial divergences of one chunk, with the normalisers known: state_ptr float32 [N, DIVERGENCES, chunks].

    The moments of d do not depend on a constant, and rounding is smallest when d is near 0 where most of the mass is:
    the gap is taken about pivot_ptr, float32 [N], which is near that of the likeliest tokens.
    """
    row = (tl.program_id(0) // chunks).to(tl.int64)
    chunk = tl.program_id(0) % chunks
    ids = chunk * CHUNK + tl.arange(0, CHUNK)
    row_a_ptr += row * ROW_SLOTS
    row_b_ptr += row * ROW_SLOTS
    log_sum_a, log_sum_b = tl.load(row_a_ptr + LOG_SUM), tl.load(row_b_ptr + LOG_SUM)
    z_a, z_b = load_logits(a_ptr + row * stride_a, ids, vocab), load_logits(b_ptr + row * stride_b, ids, vocab)
    x_a, x_b = finite_x(z_a - tl.load(row_a_ptr + ROW_MAX), z_a), finite_x(z_b - tl.load(row_b_ptr + ROW_MAX), z_b)
    p_a, p_b = tl.exp2((x_a - log_sum_a) * LOG2E), tl.exp2((x_b - log_sum_b) * LOG2E)
    gap = x_b - x_a  # -inf where only a allows the token, +inf where only b does, NaN where neither
    centred = tl.where(tl.abs(gap) < INF, gap - tl.load(pivot_ptr + row), 0.0)
    state_ptr += row * DIVERGENCES * chunks + chunk
    tl.store(state_ptr + GAP * chunks, tl.sum(p_a * centred))
    tl.store(state_ptr + GAP_SQUARED * chunks, tl.sum(p_a * centred * centred))

    kl_ab, kl_ba, js, tv = divergence_terms(gap, log_sum_b - log_sum_a, p_a, p_b)
    tl.store(state_ptr + KL_AB * chunks, tl.sum(kl_ab))
    tl.store(state_ptr + KL_BA * chunks, tl.sum(kl_ba))
    tl.store(state_ptr + JS * chunks, tl.sum(js))
    tl.store(state_ptr + TV * chunks, tl.sum(tv))
