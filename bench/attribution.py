"""The known truth: two hundred models that were made and not trained, and pairs that differ by noise alone.

``python bench/attribution.py`` prints the confusion table. Two processes, one thread each.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
from common import ROOT  # puts the tests on the path

from tests.attribution import cases
from tests.attribution.synthetic import baseline

assert ROOT
PROCESSES = 2
PAIRS = 200
# What a test at 5 % finds in at most 99 of 100 such simulations: one rate of 200 pairs, the largest of eight.
NOMINAL, NOMINAL_OF_MEASURES = 9.0, 10.0
Found = TypeVar("Found")


@dataclass(frozen=True)
class Truth:
    """What came of all cases."""

    judged: list[cases.Judged]
    right: float
    """share named rightly"""
    worst: float
    """largest distance of an SSD share from the planted one, over the mixtures whose drift has a mean of 0"""
    worst_on_logits: float
    """over those whose drift is noise on the logits, which heats on average"""
    seconds: float


@dataclass(frozen=True)
class Null:
    """What came of the pairs without an effect."""

    effects: float
    """share of pairs in which anything was found"""
    by_measure: dict[str, float]
    """share of pairs with an uncorrected p of at most 0.05"""
    seconds: float


def known_truth() -> Truth:
    start = time.perf_counter()
    judged = [one for group in _shared(_group, list(range(len(cases.groups())))) for one in group]
    right = [one.category == one.case.kind for one in judged]
    neutral, on_logits = (
        max(
            abs(one.ssd - one.planted_ssd)
            for one in judged
            if one.case.kind == "mixture" and one.case.planted.on_logits == noise
        )
        for noise in (False, True)
    )
    return Truth(judged, sum(right) / len(right), neutral, on_logits, time.perf_counter() - start)


def null() -> Null:
    start = time.perf_counter()
    found = _shared(_pair, list(range(PAIRS)))
    tests: dict[str, list[float]] = {}
    for one in found:
        for test in one["against_control"]["measures"]:
            tests.setdefault(test["measure"], []).append(test["p"])
    effects = [
        any(test["p_holm"] <= 0.05 for test in one["against_control"]["measures"])
        or one["verdict"]["category"] != "none"
        for one in found
    ]
    by_measure = {name: sum(p <= 0.05 for p in values) / len(values) for name, values in tests.items()}
    return Null(sum(effects) / len(effects), by_measure, time.perf_counter() - start)


def _group(index: int) -> list[cases.Judged]:
    torch.set_num_threads(1)
    with TemporaryDirectory() as directory:
        return cases.judge(cases.groups()[index], Path(directory), baseline(seed=index), index)


def _pair(seed: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    with TemporaryDirectory() as directory:
        return cases.null_pair(Path(directory), seed)


def _shared(work: Callable[[int], Found], items: list[int]) -> list[Found]:
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(work, items))


def main() -> None:
    truth = known_truth()
    print(cases.confusion(truth.judged))
    for one in truth.judged:
        if one.category != one.case.kind:
            print(f"{one.case}: {one.text}")
    print(f"{truth.right:.1%} right; shares {truth.worst:.3f}, {truth.worst_on_logits:.3f} off; {truth.seconds:.0f} s")
    print(null())


if __name__ == "__main__":
    main()
