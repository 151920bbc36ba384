"""Shared by the kernels of every operation: slots of a state, the order of logits, powers, divergences.

Legend: a is the baseline, b the trained model, z logit, d = log p_b - log p_a, gap = d up to a constant of the row.
"""

import triton
import triton.language as tl

from . import state

# The slots of a partial state and of the divergences, as constants of a kernel.
MAX = tl.constexpr(state.MAX)
WEIGHTED = tl.constexpr(state.WEIGHTED)
AHEAD = tl.constexpr(state.AHEAD)
POSSIBLE = tl.constexpr(state.POSSIBLE)
REST = tl.constexpr(state.REST)
SUM = tl.constexpr(state.SUM)
A_D = tl.constexpr(state.A_D)
B_D = tl.constexpr(state.B_D)
A_DD = tl.constexpr(state.A_DD)
KL_AB = tl.constexpr(state.KL_AB)
KL_BA = tl.constexpr(state.KL_BA)
JS = tl.constexpr(state.JS)
TV = tl.constexpr(state.TV)
GAP = tl.constexpr(state.GAP)
GAP_SQUARED = tl.constexpr(state.GAP_SQUARED)
DIVERGENCES = tl.constexpr(state.DIVERGENCES)

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
INF = tl.constexpr(float("inf"))
LOWEST = tl.constexpr(-1e35)  # as many as a chunk has can be added up
SATURATED = tl.constexpr(state.SATURATED)

ABSENT = tl.constexpr(-(1 << 63))
ID_MASK = tl.constexpr((1 << 31) - 1)


@triton.jit
def ordered(z):
    """int32 that orders as float32 z does, with -0 equal to +0."""
    bits = tl.where(z == 0, 0.0, z).to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ ID_MASK, bits)


@triton.jit
def pack(z, ids, present):
    """A token as one int64: its logit, ``ordered``, above its id inverted; ABSENT where there is none.

    The larger integer is the larger logit or, tied, the smaller id.
    """
    return tl.where(present, (ordered(z).to(tl.int64) << 32) | (ids ^ ID_MASK).to(tl.int64), ABSENT)


@triton.jit
def unpack(key):
    """(logit, id); -inf and some id for an absent one."""
    bits = (key >> 32).to(tl.int32)
    z = tl.where(bits < 0, bits ^ ID_MASK, bits).to(tl.float32, bitcast=True)
    return tl.where(key == ABSENT, -INF, z), (key & ID_MASK).to(tl.int32) ^ ID_MASK


@triton.jit
def finite_x(x, z):
    """x = z less a maximum, LOWEST where it overflows: -inf is left for tokens that cannot occur. NaN stays."""
    return tl.where((x == -INF) & (z > -INF), LOWEST, x)


@triton.jit
def finite_gap(d):
    """d = x_b - x_a, 0 unless both models allow the token; it saturates, or a few of it would add up to infinity."""
    d = tl.where(tl.abs(d) < INF, d, 0.0)
    return tl.minimum(tl.maximum(d, -SATURATED), SATURATED)


@triton.jit
def scaled(weight, value):
    """weight * value, float64; 0 for a weight of 0, of which an infinite value would make NaN."""
    return tl.where((weight == 0) & (tl.abs(value) == INF), 0.0, weight * value)


@triton.jit
def power(u, n: tl.constexpr):
    """u^n."""
    result = u
    for _ in tl.static_range(n - 1):
        result *= u
    return result


@triton.jit
def divergence_terms(gap, log_ratio, p_a, p_b):
    """The terms of one token in KL(a || b), KL(b || a), JS and TV.

    gap: x_b - x_a; -inf where only a allows the token, +inf where only b does, NaN where neither. log_ratio: the
    log of b's normaliser over a's. Every term is >= 0 and small where d is small, so that a divergence of 1e-7 is
    right. With g = e^d - 1 - d: KL(a || b) = sum p_a g(d), KL(b || a) = sum p_b g(-d), TV = 1/2 sum p_a |d + g(d)|, and
    JS = sum 1/2 (p_a + p_b) psi(|d| / 2) with psi(h) = h tanh h - log cosh h. Series for |d| < 1/2.
    """
    both = tl.abs(gap) < INF
    d = tl.where(both, gap - log_ratio, 0.0)
    near = both & (tl.abs(d) < 0.5)
    g = _exp_minus_line(d)
    kl_ab = tl.where(near, p_a * g, tl.where(gap == -INF, INF, p_b - p_a - p_a * d))
    kl_ba = tl.where(near, p_b * _exp_minus_line(-d), tl.where(gap == INF, INF, p_a - p_b + p_b * d))
    tv = 0.5 * tl.abs(tl.where(near, p_a * (d + g), p_b - p_a))
    hh = 0.25 * d * d
    psi_near = hh * (1 / 2 + hh * (-1 / 4 + hh * (1 / 9 + hh * (-17 / 360 + hh * (31 / 1575)))))
    t = tl.exp2(tl.abs(d) * -LOG2E)
    psi_far = (1 - tl.log2(1 + t)) * LN2 - tl.abs(d) * t / (1 + t)
    psi = tl.where(near, psi_near, tl.where(both, psi_far, LN2))
    return kl_ab, kl_ba, 0.5 * (p_a + p_b) * psi, tv


@triton.jit
def _exp_minus_line(d):
    """e^d - 1 - d for |d| < 1/2, to 5e-8 relative."""
    series = 1 / 120 + d * (1 / 720 + d * (1 / 5040 + d * (1 / 40320)))
    return d * d * (1 / 2 + d * (1 / 6 + d * (1 / 24 + d * series)))
