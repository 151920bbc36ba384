"""The top lists from the groups of the tiles: which tokens they can hold, and their logits one by one.

A token of the list is the largest of its group, or its group's sum without the largest shows that there may be another.
The logits of such tokens are computed again, as dot products; of a group that may have several, all of them. Their
order of summation is another than that of the tiles, as with any other product.

Shape legend: N rows, G groups of a row, P pairs of a row and a token, C candidates of a row, K the length of the list.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..probe_stats.state import AHEAD, MAX, REST, TopList
from .triton_blocks import Model
from .triton_tiles import BEYOND, GROUP

PAIRS = tl.constexpr(16)  # of a program
# Of a logit, what a group's largest value loses to the place of its token: 5 bits of 24, rounded up.
PLACE_ERROR = 2**-17
GROUPS_PER_TOKEN = 4  # a row with more groups near its list goes by its logits


@dataclass(frozen=True)
class Groups:
    """Of each group its largest logit, nearly; its sum of e^x, and that without its largest. x is less ``max_NG``.

    All are float32 [N, G].
    """

    largest_NG: Tensor
    sum_NG: Tensor
    rest_NG: Tensor
    max_NG: Tensor


@triton.jit
def products_at(  # type: ignore[no-untyped-def]
    hidden_ptr, weight_ptr, row_ptr, id_ptr, out_ptr, pairs, size, stride_hidden, stride_weight, DEPTH: tl.constexpr
):
    """hidden[row] · weight[id] of each pair, float32, to ``out_ptr`` [P]: the same bits for the same operands."""
    pair = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    live = pair < pairs
    h = tl.arange(0, DEPTH)
    hidden_ptr += tl.load(row_ptr + pair, mask=live, other=0)[:, None] * stride_hidden + h[None, :]
    weight_ptr += tl.load(id_ptr + pair, mask=live, other=0)[:, None] * stride_weight + h[None, :]
    total = tl.zeros([PAIRS, DEPTH], tl.float32)
    for start in range(0, size, DEPTH):
        inside = (start + h < size)[None, :]
        a = tl.load(hidden_ptr + start, mask=inside, other=0.0).to(tl.float32)
        total += a * tl.load(weight_ptr + start, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + pair, tl.sum(total, axis=1), mask=live)


def logits_at(model: Model, row_P: Tensor, id_P: Tensor) -> Tensor:
    """float32 logits [P] of pairs of a row and a token; the head is a weight alone."""
    hidden_NH, weight_VH = model.hidden_NH, model.head.weight_VH
    z_P = hidden_NH.new_empty(row_P.shape[0], dtype=torch.float32)
    if row_P.shape[0]:
        products_at[(triton.cdiv(row_P.shape[0], PAIRS.value),)](
            hidden_NH, weight_VH, row_P, id_P, z_P, row_P.shape[0], model.size, hidden_NH.stride(0),
            weight_VH.stride(0), DEPTH=min(256, triton.next_power_of_2(model.size)), num_warps=4,
        )  # fmt: skip
    return z_P


def top_list(
    model: Model, token_N: Tensor, token_z_N: Tensor, groups: Groups, top: int, slots_SN: Tensor
) -> tuple[TopList, Tensor]:
    """The K likeliest tokens of each row, and which rows [N] have too many near them, whose list is wrong.

    Adds to AHEAD the tokens of the token's own group, and sets REST. token_z_N is that of ``logits_at``.
    """
    n, v = token_N.shape[0], model.vocabulary
    bar_N = groups.largest_NG.topk(top, dim=1).values[:, -1]
    bar_N = bar_N - 2 * PLACE_ERROR * bar_N.abs()  # both it and the group's largest may have lost
    reach_NG = (groups.largest_NG >= bar_N[:, None]) & (groups.largest_NG > BEYOND.value / 2)
    crowded_N = reach_NG.sum(1) > GROUPS_PER_TOKEN * top + 16
    reach_NG &= ~crowded_N[:, None]
    # Rounding may have left a second token out of the sum by a part in thousands, no more.
    several_NG = reach_NG & (groups.rest_NG >= 0.999 * (bar_N[:, None] - groups.max_NG).exp())
    several_NG.scatter_(1, token_N[:, None] // GROUP.value, True)
    alone_NG = reach_NG & ~several_NG

    row_P, group_P = alone_NG.nonzero().unbind(1)
    id_P = group_P * GROUP.value + (groups.largest_NG[row_P, group_P].view(torch.int32) & (GROUP.value - 1))
    row_Q, group_Q = several_NG.nonzero().unbind(1)
    id_Q = (group_Q[:, None] * GROUP.value + torch.arange(GROUP.value, device=token_N.device)).flatten()
    row_Q = row_Q.repeat_interleave(GROUP.value)
    row_P, id_P = torch.cat([row_P, row_Q[id_Q < v]]), torch.cat([id_P, id_Q[id_Q < v]])
    z_P = logits_at(model, row_P, id_P)

    own_P = id_P // GROUP.value == token_N[row_P] // GROUP.value
    before_P = (z_P > token_z_N[row_P]) | ((z_P == token_z_N[row_P]) & (id_P < token_N[row_P]))
    before_P &= own_P & (id_P != token_N[row_P])
    slots_SN[AHEAD].index_add_(0, row_P, before_P.to(slots_SN.dtype))

    keys_NC = _by_row(_pack(z_P, id_P), row_P, n, top)
    best_NK = keys_NC.topk(top, dim=1).values
    z_NK, ids_NK = _unpack(best_NK)
    dropped_NC = torch.where(keys_NC < best_NK[:, -1:], _unpack(keys_NC)[0], -torch.inf)
    rest_N = (dropped_NC - slots_SN[MAX][:, None]).exp().sum(1)
    left_NG = torch.where(alone_NG, groups.rest_NG, groups.sum_NG).masked_fill_(several_NG, 0.0)
    left_NG *= (groups.max_NG - slots_SN[MAX].float()[:, None]).exp()
    slots_SN[REST] = rest_N + left_NG.sum(1, dtype=torch.float64)
    return TopList(z_NK, ids_NK, None), crowded_N


def _by_row(keys_P: Tensor, row_P: Tensor, n: int, least: int) -> Tensor:
    """The keys of each row in a row of their own, [N, C], C >= ``least``, the smallest integer where there is none."""
    order_P = row_P.argsort(stable=True)
    count_N = torch.bincount(row_P, minlength=n)
    first_N = count_N.cumsum(0) - count_N
    sorted_P = row_P[order_P]
    place_P = torch.arange(row_P.shape[0], device=row_P.device) - first_N[sorted_P]
    widest = max(least, int(count_N.max()))
    keys_NC = keys_P.new_full((n, widest), torch.iinfo(torch.int64).min)
    keys_NC[sorted_P, place_P] = keys_P[order_P]
    return keys_NC


def _pack(z: Tensor, ids: Tensor) -> Tensor:
    """``triton_math.pack``: the larger integer is the larger logit or, tied, the smaller id."""
    bits = (z + 0.0).view(torch.int32)  # -0 becomes 0
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (ordered.to(torch.int64) << 32) | (ids ^ 0x7FFFFFFF)


def _unpack(keys: Tensor) -> tuple[Tensor, Tensor]:
    """(logit, id); -inf and -1 for an absent one."""
    bits = (keys >> 32).to(torch.int32)
    z = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).view(torch.float32)
    absent = keys == torch.iinfo(torch.int64).min
    ids = (keys & 0x7FFFFFFF) ^ 0x7FFFFFFF
    return torch.where(absent, -torch.inf, z), torch.where(absent, -1, ids)
