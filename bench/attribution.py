"""Known causes: two hundred synthetic models with a known shift, and pairs that differ by noise alone.

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
NOMINAL, NOMINAL_BY_METRIC = 9.0, 10.0
Result = TypeVar("Result")


@dataclass(frozen=True)
class Truth:
    """The results of all cases."""

    outcomes: list[cases.Outcome]
    correct: float
    """fraction classified correctly"""
    worst: float
    """largest error of the SSD fraction, over the mixtures whose residual has a mean of 0"""
    worst_on_logits: float
    """over those whose residual is noise on the logits, which raises the temperature on average"""
    seconds: float


@dataclass(frozen=True)
class Null:
    """The results of the pairs without an effect."""

    effects: float
    """fraction of pairs with a verdict other than none"""
    metrics: float
    """fraction of pairs with a metric that differs after correction"""
    by_metric: dict[str, float]
    """fraction of pairs with an uncorrected p-value of at most 0.05"""
    seconds: float


def known_truth() -> Truth:
    start = time.perf_counter()
    outcomes = [outcome for group in in_processes(_group, list(range(len(cases.groups())))) for outcome in group]
    correct = [outcome.category == outcome.case.kind for outcome in outcomes]
    neutral, on_logits = (
        max(
            abs(outcome.ssd - outcome.planted_ssd)
            for outcome in outcomes
            if outcome.case.kind == "mixture" and outcome.case.planted.on_logits == noise
        )
        for noise in (False, True)
    )
    return Truth(outcomes, sum(correct) / len(correct), neutral, on_logits, time.perf_counter() - start)


def null() -> Null:
    start = time.perf_counter()
    results = in_processes(_pair, list(range(PAIRS)))
    tests: dict[str, list[float]] = {}
    for result in results:
        for test in result["vs_control"]["metrics"]:
            tests.setdefault(test["metric"], []).append(test["p_value"])
    effects = [result["verdict"]["category"] != "none" for result in results]
    metrics = [any(test["p_value_holm"] <= 0.05 for test in result["vs_control"]["metrics"]) for result in results]
    by_metric = {name: sum(p <= 0.05 for p in values) / len(values) for name, values in tests.items()}
    return Null(sum(effects) / PAIRS, sum(metrics) / PAIRS, by_metric, time.perf_counter() - start)


def _group(index: int) -> list[cases.Outcome]:
    torch.set_num_threads(1)
    with TemporaryDirectory() as directory:
        return cases.classify(cases.groups()[index], Path(directory), baseline(seed=index), index)


def _pair(seed: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    with TemporaryDirectory() as directory:
        return cases.null_pair(Path(directory), seed)


def in_processes(work: Callable[[int], Result], items: list[int]) -> list[Result]:
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(work, items))


def main() -> None:
    truth = known_truth()
    print(cases.confusion(truth.outcomes))
    for outcome in truth.outcomes:
        if outcome.category != outcome.case.kind:
            print(f"{outcome.case}: {outcome.text}")
    errors = f"largest errors of fractions {truth.worst:.3f}, {truth.worst_on_logits:.3f}"
    print(f"{truth.correct:.1%} correct; {errors}; {truth.seconds:.0f} s")
    print(null())


if __name__ == "__main__":
    main()
