"""Stratified subsets of problems: nested, in proportion to the strata, and the same every time.

    stratified_subset(ids, difficulties, 300, seed=0)

are the first 300 of `stratified_subset(ids, difficulties, 1000, seed=0)`, whatever the order of ids.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence


def stratified_subset(
    problem_ids: Sequence[str], strata: Sequence[Hashable], size: int, seed: int = 0
) -> tuple[str, ...]:
    """The first `size` problems of an order of all problems that depends on ids, strata and seed alone.

    strata: the stratum of each problem, such as its difficulty or source. At any size each stratum's count differs by
    less than 1 from its proportion; within a stratum the order is random by the seed.
    Raises ValueError for ids given twice, naming the first, unequal lengths, and a size that is not 1 to all problems.
    """
    if len(problem_ids) != len(strata):
        raise ValueError(
            f"{len(problem_ids)} problems and {len(strata)} strata do not match: give one of each per problem"
        )
    twice = [name for name, count in Counter(problem_ids).items() if count > 1]
    if twice:
        raise ValueError(
            f"{len(twice)} problem ids appear twice, the first {min(twice)!r}: give each problem its own id"
        )
    if not 1 <= size <= len(problem_ids):
        raise ValueError(
            f"{size} of {len(problem_ids)} problems cannot be selected: give a size from 1 to {len(problem_ids)}"
        )
    ids_by_stratum = defaultdict(list)
    for problem_id, stratum in zip(problem_ids, strata, strict=True):
        ids_by_stratum[str(stratum)].append(problem_id)
    for ids in ids_by_stratum.values():
        ids.sort(key=lambda problem_id: _random_key(seed, problem_id))
    sizes = {name: len(ids) for name, ids in ids_by_stratum.items()}
    return tuple(ids_by_stratum[name][turn] for name, turn in _turns(sizes, size))


def _turns(sizes: dict[str, int], count: int) -> list[tuple[str, int]]:
    """The first `count` turns of an order that keeps every stratum within 1 of its proportion at every turn.

    The i-th problem of n in a stratum, out of N in all, may come no sooner than turn floor((i-1) N/n) + 1 and no later
    than ceil(i N/n); taking the one due first among those that may come meets them all (Tijdeman 1980; Steiner and
    Yeomans 1993).
    """
    total = sum(sizes.values())
    waiting = [(1, name, 0) for name in sorted(sizes)]  # the turn from which it may come
    ready: list[tuple[int, str, int]] = []  # the turn by which it must
    turns = []
    for turn in range(1, count + 1):
        while waiting and waiting[0][0] <= turn:
            _, name, done = heapq.heappop(waiting)
            heapq.heappush(ready, (-(-(done + 1) * total // sizes[name]), name, done))
        _, name, done = heapq.heappop(ready)
        turns.append((name, done))
        if done + 1 < sizes[name]:
            heapq.heappush(waiting, ((done + 1) * total // sizes[name] + 1, name, done + 1))
    return turns


def _random_key(seed: int, problem_id: str) -> bytes:
    return hashlib.sha256(f"{seed}/{problem_id}".encode()).digest()
