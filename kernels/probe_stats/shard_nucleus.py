"""How many of the likeliest tokens hold a given mass, over a vocabulary in shards.

The search reads the logits as 32-bit keys of the same order, in digits of 11, 11 and 10 bits: the mass of every digit
is summed over all shards, and the digit in which the target is reached joins the prefix. Masses are whole numbers, so
their sums are exact in any order, and every rank gets the same size.

Shape legend: R searched rows, V entries of this shard, D digits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PASSES = ((21, 11), (10, 11), (0, 10))  # (bits below the digit, bits of the digit)


def nucleus_sizes(
    z_RV: Tensor, max_R: Tensor, top_p: float, vocabulary: int, all_sum: Callable[[Tensor], Tensor]
) -> Tensor:
    """Length [R], int64, of the shortest prefix of the whole vocabulary's tokens that holds mass top_p < 1.

    z_RV: this shard's logits of valid rows, bf16, fp16 or fp32; V may be 0. max_R: the rows' largest logits.
    all_sum: sums an int64 tensor over all shards.
    """
    z_RV = z_RV.float()
    possible_RV = z_RV > -torch.inf
    keys_RV = _ordered(z_RV)
    # 2^62 over the size of the vocabulary: a sum cannot overflow, and a token too small to count does not matter.
    unit = 2.0 ** (62 - vocabulary.bit_length())
    mass_RV = ((z_RV.double() - max_R.double()[:, None]).exp() * unit).round().long()

    rows = max_R.shape[0]
    prefix_R = torch.zeros(rows, dtype=torch.int64, device=z_RV.device)
    mass_above_R, count_above_R, target_R = prefix_R, prefix_R, prefix_R.double()
    mass_R, count_R = prefix_R, prefix_R
    for i, (shift, bits) in enumerate(PASSES):
        digit_RV = (keys_RV >> shift) & ((1 << bits) - 1)
        matches_RV = possible_RV & (keys_RV >> (shift + bits) == prefix_R[:, None])
        sums = z_RV.new_zeros(2, rows, 1 << bits, dtype=torch.int64)
        sums[0].scatter_add_(1, digit_RV, torch.where(matches_RV, mass_RV, 0))
        sums[1].scatter_add_(1, digit_RV, matches_RV.long())
        mass_RD, count_RD = all_sum(sums)
        if i == 0:
            target_R = mass_RD.sum(1).double() * top_p
        reached_RD = mass_above_R[:, None] + mass_RD.flip(1).cumsum(1).flip(1)
        candidate_RD = (reached_RD.double() >= target_R[:, None]) & (count_RD > 0)
        digits_D = torch.arange(1 << bits, device=z_RV.device)
        # Where rounding leaves the row short of its target, the smallest digit in use.
        smallest_R = torch.where(count_RD > 0, digits_D, 1 << bits).amin(1)
        digit_R = torch.maximum(torch.where(candidate_RD, digits_D, -1).amax(1), smallest_R)
        above_RD = digits_D > digit_R[:, None]
        mass_above_R = mass_above_R + torch.where(above_RD, mass_RD, 0).sum(1)
        count_above_R = count_above_R + torch.where(above_RD, count_RD, 0).sum(1)
        mass_R, count_R = (x.gather(1, digit_R[:, None])[:, 0] for x in (mass_RD, count_RD))
        prefix_R = (prefix_R << bits) | digit_R
    # The tokens that remain have the same logit.
    needed_R = ((target_R - mass_above_R) / mass_R * count_R).ceil()
    return count_above_R + needed_R.nan_to_num(1).clamp(min=1).minimum(count_R).long()


def _ordered(z: Tensor) -> Tensor:
    """int64 in [0, 2^32) that orders as float32 z does; -0 is just below +0."""
    bits = z.view(torch.int32).long()
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits) + (1 << 31)
