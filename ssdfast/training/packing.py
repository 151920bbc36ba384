"""Traces together in one row of tokens, none reading another.

Attention is kept apart by positions that begin again at 0 for each trace. Layers that carry a state along the row
(linear attention, state-space models) pass it on all the same where their kernels know nothing of positions: whether a
model keeps traces apart is tried out, and one that does not is trained unpacked.

Shape legend: L tokens of a row, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_TRIAL = (9, 14, 5)
"""tokens of the traces that packing is tried on"""


def first_fit_decreasing(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Bins of at most `budget` tokens: places in `lengths`, longest first, each in the first bin that has room.

    At most 11/9 of the fewest bins there can be, and one (Johnson 1973; Dósa 2007). What is longer than the budget has
    a bin to itself. O(n log n), by a tree of the most room that any of some bins has; equal lengths in their order.
    """
    count = len(lengths)
    leaves = 1 << max(0, (count - 1).bit_length())
    room = [budget] * (2 * leaves)  # node i has the most room of its children, 2i and 2i + 1
    bins: list[list[int]] = [[] for _ in range(count)]
    for place in sorted(range(count), key=lambda place: (-lengths[place], place)):
        length = min(lengths[place], budget)
        node = 1
        while node < leaves:
            node = 2 * node if room[2 * node] >= length else 2 * node + 1
        bins[node - leaves].append(place)
        room[node] -= length
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
    return [one for one in bins if one]


def positions(lengths: Sequence[int]) -> Tensor:
    """int64 [1, sum of lengths]: 0, 1, 2, ... anew for each trace."""
    return torch.cat([torch.arange(length) for length in lengths])[None]


@torch.no_grad()
def packs_exactly(network: Any) -> bool:
    """Whether traces packed into a row get the hidden states that each has alone, up to rounding."""
    weight = network.get_output_embeddings().weight
    chooser = torch.Generator().manual_seed(0)
    ids = [torch.randint(weight.shape[0], (1, length), generator=chooser).to(weight.device) for length in _TRIAL]
    was_training = network.training
    network.eval()
    packed_LH = network.base_model(
        input_ids=torch.cat(ids, 1), position_ids=positions(_TRIAL).to(weight.device), use_cache=False
    ).last_hidden_state[0]
    alone_LH = torch.cat([network.base_model(input_ids=one, use_cache=False).last_hidden_state[0] for one in ids])
    network.train(was_training)
    rounding = 1e-4 if weight.dtype == torch.float32 else 5e-2
    return bool((packed_LH - alone_LH).abs().max() <= rounding * alone_LH.abs().max())
