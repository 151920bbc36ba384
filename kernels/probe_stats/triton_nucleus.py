"""How many of the likeliest tokens hold a given mass, for any number up to the whole vocabulary.

A search over the logits as integers of the same order (32 bits, ``ordered``), 4 bits per pass: the mass of each of the
16 values of the next digit is summed over the row, and the digit in which the mass is reached joins the prefix.
Nothing is sorted or stored but 16 sums per chunk. bf16 has 16 significant bits, so 4 passes end the search; the 19 of
fp16 need 5, the 32 of fp32 need 8. Only then are tokens tied, and all as likely, so their number is a division.

Legend: R searched rows, an int64 list of the rows of the logits.
"""

import torch
import triton
import triton.language as tl

from .triton_math import INF, LOG2E, ordered
from .triton_rows import COLUMNS, ROW_MAX, ROW_SLOTS

DIGITS = tl.constexpr(16)
CHUNK = tl.constexpr(2048)
PASSES = {torch.bfloat16: 4, torch.float16: 5, torch.float32: 8}


@triton.jit(do_not_specialize=["shift"])
def digit_masses(
    z_ptr, rows_ptr, row_ptr, prefix_ptr, mass_ptr, count_ptr, vocab, chunks, stride_z, shift, FIRST: tl.constexpr
):
    """exp(z - M) summed, and tokens counted, by the next digit of those that begin with the row's prefix.

    mass_ptr, count_ptr: float32, int32 [R, DIGITS, chunks]. prefix_ptr: int64 [R], unread on the FIRST pass.
    """
    search = (tl.program_id(0) // chunks).to(tl.int64)
    chunk = tl.program_id(0) % chunks
    row = tl.load(rows_ptr + search)
    ids = chunk * CHUNK + tl.arange(0, CHUNK)
    z = tl.load(z_ptr + row * stride_z + ids, mask=ids < vocab, other=-INF).to(tl.float32)
    e = tl.exp2((z - tl.load(row_ptr + row * ROW_SLOTS + ROW_MAX)) * LOG2E)
    key = ordered(z).to(tl.int64) + (1 << 31)
    matches = ids < vocab
    if not FIRST:
        matches &= (key >> (shift + 4)) == tl.load(prefix_ptr + search)
    digit = tl.where(matches, ((key >> shift) & 15).to(tl.int32), -1)
    offset = (search * DIGITS + tl.arange(0, DIGITS)) * chunks + chunk
    mass = tl.zeros([DIGITS], tl.float32)
    count = tl.zeros([DIGITS], tl.int32)
    for value in tl.static_range(DIGITS):
        here = tl.arange(0, DIGITS) == value
        mass = tl.where(here, tl.sum(tl.where(digit == value, e, 0.0)), mass)
        count = tl.where(here, tl.sum((digit == value).to(tl.int32)), count)
    tl.store(mass_ptr + offset, mass)
    tl.store(count_ptr + offset, count)


@triton.jit(do_not_specialize_on_alignment=COLUMNS)
def choose_digit(
    rows_ptr, prefix_ptr, tokens_above_ptr, mass_above_ptr, target_ptr, mass_ptr, count_ptr, nucleus_size_ptr, chunks,
    CHUNKS: tl.constexpr, TOP_P: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr,
):  # fmt: skip
    """The next digit of one row's prefix; after the LAST, its nucleus size.

    prefix_ptr, tokens_above_ptr: int64 [R]; mass_above_ptr, target_ptr: float64 [R], in units of the likeliest token.
    "Above" are the tokens whose leading digits exceed the prefix: their mass falls short of the target.
    """
    search = tl.program_id(0).to(tl.int64)
    digit = tl.arange(0, DIGITS)
    mass = tl.zeros([DIGITS], tl.float64)
    count = tl.zeros([DIGITS], tl.int64)
    block: tl.constexpr = 16
    for first in range(0, CHUNKS, block):
        chunk = first + tl.arange(0, block)
        live = (chunk < chunks)[None, :]
        slot = (search * DIGITS + digit[:, None]) * chunks + chunk[None, :]
        mass += tl.sum(tl.load(mass_ptr + slot, mask=live, other=0.0).to(tl.float64), axis=1)
        count += tl.sum(tl.load(count_ptr + slot, mask=live, other=0).to(tl.int64), axis=1)
    if FIRST:
        prefix = search * 0
        tokens_above, mass_above = prefix, tl.sum(mass) * 0
        target = tl.sum(mass) * TOP_P
        tl.store(target_ptr + search, target)
    else:
        prefix, tokens_above = tl.load(prefix_ptr + search), tl.load(tokens_above_ptr + search)
        mass_above, target = tl.load(mass_above_ptr + search), tl.load(target_ptr + search)

    reached = mass_above + tl.cumsum(mass, reverse=True)
    smallest = tl.min(tl.where(count > 0, digit, DIGITS))  # where rounding leaves the whole row short of the target
    last_digit = tl.maximum(tl.max(tl.where((reached >= target) & (count > 0), digit, -1)), smallest)
    mass_above += tl.sum(tl.where(digit > last_digit, mass, 0.0))
    tokens_above += tl.sum(tl.where(digit > last_digit, count, 0))
    if LAST:
        tied = tl.sum(tl.where(digit == last_digit, count, 0))
        mass_each = tl.sum(tl.where(digit == last_digit, mass, 0.0)) / tied
        needed = tl.ceil((target - mass_above) / mass_each)
        needed = tl.where(needed < tied, tl.where(needed > 1, needed, 1.0), tied.to(tl.float64))
        tl.store(nucleus_size_ptr + tl.load(rows_ptr + search), tokens_above + needed.to(tl.int64))
    else:
        tl.store(prefix_ptr + search, (prefix << 4) | last_digit)
        tl.store(tokens_above_ptr + search, tokens_above)
        tl.store(mass_above_ptr + search, mass_above)
