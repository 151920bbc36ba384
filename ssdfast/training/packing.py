"""Traces to bins of a token budget.

Source: D. S. Johnson, Near-optimal bin packing algorithms, 1973 (first-fit decreasing); the bound is Dósa's, 2007.
"""

from __future__ import annotations

from collections.abc import Sequence


def first_fit_decreasing(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Bins of at most `budget` tokens: places in `lengths`, longest first, each in the first bin that has room.

    At most 11/9 of the fewest bins there can be, and one. What is longer than the budget has a bin to itself.
    O(n log n), by a tree of the most room that any of some bins has; equal lengths in their order.
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


def padded_bins(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """The same where every trace of a bin takes the room of its longest: neighbours by length, longest first."""
    bins: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        if bins and (len(bins[-1]) + 1) * lengths[bins[-1][0]] <= budget:
            bins[-1].append(place)
        else:
            bins.append([place])
    return bins


def shared(bins: Sequence[Sequence[int]], lengths: Sequence[int], ranks: int) -> list[list[list[int]]]:
    """The bins of each rank: as many for every rank, at least two in all where there are two traces, and about as many
    tokens. A rank that no trace is left for has empty bins.

    Bins are cut in two where there are too few, the one with most tokens that has several traces first.
    """
    found = [list(one) for one in bins]
    while len(found) % ranks or len(found) < 2:
        several = [one for one in found if len(one) > 1]
        if not several:
            if len(found) % ranks == 0:
                break
            found.append([])
            continue
        largest = max(several, key=lambda one: sum(lengths[place] for place in one))
        found.remove(largest)
        found += [largest[::2], largest[1::2]]
    loads = [0] * ranks
    of_ranks: list[list[list[int]]] = [[] for _ in range(ranks)]
    for one in sorted(found, key=lambda one: -sum(lengths[place] for place in one)):
        open_ranks = [rank for rank in range(ranks) if len(of_ranks[rank]) < len(found) // ranks]
        rank = min(open_ranks, key=lambda rank: (loads[rank], rank))
        of_ranks[rank].append(one)
        loads[rank] += sum(lengths[place] for place in one)
    return of_ranks
