"""Rows read in vectors of 16 bytes, and the few instructions that differ between GPUs.

A row need not begin at a multiple of 16 bytes. Places in a row count from the multiple at or before its first logit,
so that vectors are aligned: place = id + lead, with ``lead`` from 0 to 7.

Legend: T threads of a program, W words of 4 bytes in a vector, H logits in a word (2, or 1 of float32), VECTOR = 4 H
logits. PTX is the compute capability (80, 90, 100), or 0 for other GPUs and for Triton's interpreter, which do the
same in portable operations.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import triton
import triton.language as tl

LOG2E_32 = float(np.float32(1.4426950408889634))
SCALE = tl.constexpr(LOG2E_32)  # logits to powers of two: a float32, so that a fused product is of the same constant
PAD = tl.constexpr(-1e30)  # in place of a logit beyond the row: its exponential is 0, and so is every product with it
LOWEST_SURE = tl.constexpr(-1e29)  # no row with a maximum below it is summed with pads
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@dataclass(frozen=True)
class Machine:
    """ptx: see PTX above. warp: threads of a warp."""

    ptx: int
    warp: int = 32

    @staticmethod
    def for_device(device: torch.device) -> "Machine":
        return _machine(device.index or 0) if device.type == "cuda" else Machine(0)


@cache
def _machine(index: int) -> Machine:
    properties = torch.cuda.get_device_properties(index)
    if torch.version.hip:
        return Machine(0, properties.warp_size)
    return Machine(10 * properties.major + properties.minor)


@triton.jit
def lead_of(row_ptr):
    """Logits between the row's first and the multiple of 16 bytes at or before it."""
    return ((row_ptr.to(tl.int64) & 15) // (row_ptr.dtype.element_ty.primitive_bitwidth // 8)).to(tl.int32)


@triton.jit
def aligned_words(row_ptr):
    """Pointer to the words of a row, at the multiple of 16 bytes at or before it."""
    return tl.multiple_of(row_ptr - lead_of(row_ptr), 16).to(tl.pointer_type(tl.int32), bitcast=True)


@triton.jit
def unpack(word, half: tl.constexpr, ELEMENT: tl.constexpr):
    """float32 logits of the first or second half of int32 words."""
    if ELEMENT == tl.float32:
        return word.to(tl.float32, bitcast=True)
    elif ELEMENT == tl.bfloat16:
        if half == 0:
            return (word << 16).to(tl.float32, bitcast=True)
        else:
            return (word & -65536).to(tl.float32, bitcast=True)
    else:
        if half == 0:
            return word.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
        else:
            return (word >> 16).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def exp2(x, PTX: tl.constexpr):
    """2^x, to 2 ULP; a result below 2^-126 is 0 where PTX is not 0."""
    if PTX > 0:
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return tl.exp2(x)


@triton.jit
def log2(x, PTX: tl.constexpr):
    if PTX > 0:
        return tl.inline_asm_elementwise(
            "lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return tl.log2(x)


@triton.jit
def times_minus(z, scale: tl.constexpr, less):
    """z * scale - less in one rounding. The interpreter has no fused product in float32."""
    if INTERPRETED:
        return (z.to(tl.float64) * scale - less.to(tl.float64)).to(tl.float32)
    else:
        return tl.fma(z, scale, -less)


@triton.jit
def larger_halves(x, y, ELEMENT: tl.constexpr):
    """The larger of two words, each half for itself. NaN loses."""
    CODE: tl.constexpr = "max.bf16x2 $0, $1, $2;" if ELEMENT == tl.bfloat16 else "max.f16x2 $0, $1, $2;"
    return _of_two_words(x, y, CODE)


@triton.jit
def halves_above(words, bar, ELEMENT: tl.constexpr):
    """0xffff in each half that exceeds the bar's."""
    CODE: tl.constexpr = "set.gt.u32.bf16x2 $0, $1, $2;" if ELEMENT == tl.bfloat16 else "set.gt.u32.f16x2 $0, $1, $2;"
    return _of_two_words(words, bar, CODE)


@triton.jit
def _of_two_words(x, y, CODE: tl.constexpr):
    return tl.inline_asm_elementwise(CODE, "=r,r,r", [x, y], dtype=tl.int32, is_pure=True, pack=1)


@triton.jit
def count_halves(masks):
    """How many halves were set in the masks whose sum, modulo 2^32, is given: at most 65,535 of each half."""
    low = (-masks) & 65535
    high = (low - ((masks + low) >> 16)) & 65535
    return low + high


@triton.jit
def twice(z, ELEMENT: tl.constexpr):
    """A word whose halves are both the logit z, which is one of ELEMENT."""
    if ELEMENT == tl.bfloat16:
        half = (z.to(tl.int32, bitcast=True) >> 16) & 65535
    else:
        half = z.to(tl.float16).to(tl.int16, bitcast=True).to(tl.int32) & 65535
    return half | (half << 16)


@triton.jit
def just_below(z, ELEMENT: tl.constexpr):
    """The largest value of ELEMENT below z, as float32: what exceeds it is z or more. -inf stays."""
    ulp: tl.constexpr = 1 if ELEMENT == tl.float32 else (1 << 16 if ELEMENT == tl.bfloat16 else 1)
    if ELEMENT == tl.float16:
        bits = z.to(tl.float16).to(tl.int16, bitcast=True).to(tl.int32)
        lower = tl.where(bits < 0, bits + 1, bits - 1)
        lower = tl.where(z == 0, -32767, tl.where(z == float("-inf"), bits, lower))
        return lower.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    else:
        bits = z.to(tl.int32, bitcast=True)
        lower = tl.where(bits < 0, bits + ulp, bits - ulp)
        lowest_denormal: tl.constexpr = -2147483648 + ulp
        lower = tl.where(z == 0, lowest_denormal, tl.where(z == float("-inf"), bits, lower))
        return lower.to(tl.float32, bitcast=True)
