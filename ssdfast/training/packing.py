"""Packs traces into bins of a token budget.

Source: D. S. Johnson, Near-optimal bin packing algorithms, 1973 (first-fit decreasing); the bound is Dósa's, 2007.
"""

from __future__ import annotations

from collections.abc import Sequence


def first_fit_decreasing(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Bins of at most `budget` tokens: indices into `lengths`, longest first, each in the first bin that has room.

    At most 11/9 of the minimum number of bins, plus one. A length above the budget has a bin of its own.
    O(n log n), by a tree of the largest room in each range of bins. Equal lengths keep their order.
    """
    count = len(lengths)
    leaves = 1 << max(0, (count - 1).bit_length())
    room = [budget] * (2 * leaves)  # node i has the largest room of its children, 2i and 2i + 1
    bins: list[list[int]] = [[] for _ in range(count)]
    for index in _longest_first(lengths):
        length = min(lengths[index], budget)
        node = 1
        while node < leaves:
            node = 2 * node if room[2 * node] >= length else 2 * node + 1
        bins[node - leaves].append(index)
        room[node] -= length
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
    return [indices for indices in bins if indices]


def padded_bins(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """The same where every trace of a bin is padded to the longest one: neighbours by length, longest first."""
    bins: list[list[int]] = []
    for index in _longest_first(lengths):
        if bins and (len(bins[-1]) + 1) * lengths[bins[-1][0]] <= budget:
            bins[-1].append(index)
        else:
            bins.append([index])
    return bins


def distribute(bins: Sequence[Sequence[int]], lengths: Sequence[int], ranks: int) -> list[list[list[int]]]:
    """The bins of each rank: the same number for every rank, at least two in all if there are two traces, and about as
    many tokens. A rank has empty bins if there are fewer traces than ranks.

    If there are too few bins, the one with most tokens among those with several traces is split in two.
    """
    split = [list(indices) for indices in bins]
    while len(split) % ranks or len(split) < 2:
        several = [indices for indices in split if len(indices) > 1]
        if not several:
            if len(split) % ranks == 0:
                break
            split.append([])
            continue
        largest = max(several, key=lambda indices: sum(lengths[index] for index in indices))
        split.remove(largest)
        split += [largest[::2], largest[1::2]]
    loads = [0] * ranks
    by_rank: list[list[list[int]]] = [[] for _ in range(ranks)]
    for indices in sorted(split, key=lambda indices: -sum(lengths[index] for index in indices)):
        open_ranks = [rank for rank in range(ranks) if len(by_rank[rank]) < len(split) // ranks]
        rank = min(open_ranks, key=lambda rank: (loads[rank], rank))
        by_rank[rank].append(indices)
        loads[rank] += sum(lengths[index] for index in indices)
    return by_rank


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
