"""Masses of token classes: a read of their own, on tensor cores.

A program multiplies the exponentials of ROWS rows with which class each token is of: masses [ROWS, C] += e [ROWS,
BLOCK]
times [BLOCK, C] of zeros and ones. Tensor cores take 11 bits of a float32, so e goes in two parts, 22 bits, against
ones,
which are exact; sums are float32.
"""

import triton
import triton.language as tl

from .triton_math import INF, LOG2E
from .triton_rows import ROW_MAX, ROW_SLOTS

ROWS = tl.constexpr(16)
BLOCK = tl.constexpr(64)


@triton.jit(do_not_specialize=["n_rows", "first_class"])
def class_masses(
    z_ptr, class_ptr, row_ptr, mass_ptr, n_rows, vocab, part_tokens, stride_z, first_class, n_classes,
    C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sums of e^(z - M) by class over a part of the vocabulary, for ROWS rows with the largest logits M.

    class_ptr: uint8 [V]. row_ptr: ``triton_rows``. mass_ptr: float32 [parts, N, n_classes]. Classes first_class up to
    first_class + C.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    part = tl.program_id(1)
    live = row < n_rows
    row = tl.where(live, row, 0).to(tl.int64)
    row_max = tl.load(row_ptr + row * ROW_SLOTS + ROW_MAX)
    row_max = tl.where(row_max > -INF, row_max, 0.0)[:, None]
    c = tl.arange(0, C)
    mass = tl.zeros([ROWS, C], tl.float32)
    z_ptrs = z_ptr + row[:, None] * stride_z
    for start in range(part * part_tokens, tl.minimum((part + 1) * part_tokens, vocab), BLOCK):
        ids = start + tl.arange(0, BLOCK)
        z = tl.load(z_ptrs + ids[None, :], mask=(ids < vocab)[None, :], other=-INF).to(tl.float32)
        e = tl.exp2((z - row_max) * LOG2E)
        token_class = tl.load(class_ptr + ids, mask=ids < vocab, other=0).to(tl.int32) - first_class
        is_of = (token_class[:, None] == c[None, :]).to(tl.float32)
        leading = (e.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
        mass = tl.dot(leading, is_of, mass, input_precision=PRECISION)
        mass = tl.dot(e - leading, is_of, mass, input_precision=PRECISION)
    out = mass_ptr + ((part * n_rows.to(tl.int64) + row) * n_classes)[:, None] + (first_class + c)[None, :]
    tl.store(out, mass, mask=live[:, None] & (first_class + c < n_classes)[None, :])
