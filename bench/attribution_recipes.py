"""Simulated studies of recipes whose trainings differ: how often which verdict is given, and what intervals cover.

``python bench/attribution_recipes.py [replicates]`` prints all rates. Two processes, one thread each.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from attribution import in_processes  # puts the tests on the path

from ssdfast.attribution.attribute import attribute
from ssdfast.evaluation.stats.intervals import Interval, wilson
from tests.attribution.recipes import ALL, SHAPE, STRENGTH, WRONG_SAMPLING, Setup, distilled, simulate
from tests.attribution.synthetic import Planted, baseline, write

REPLICATES = 200
NULLS = {
    f"{seeds[0]} + {seeds[1]} seeds, {name}": Setup(Planted(), jitter=jitter, seeds=seeds)
    for name, jitter in (("temperature and EOS bias vary", SHAPE), ("strengths vary", STRENGTH))
    for seeds in ((2, 2), (3, 3), (1, 3))
} | {
    "2 + 5 seeds, all vary": Setup(Planted(), jitter=ALL, seeds=(2, 5)),
    "3 + 3 seeds, both cooled to 0.9": Setup(Planted(temperature=0.9), Planted(temperature=0.9)),
    "2 + 2 seeds, 8 problems": Setup(Planted(), jitter=ALL, seeds=(2, 2), problems=8, positions=40),
}  # fmt: skip
EFFECTS = {
    f"s = {strength:g} {'everywhere' if where == 'everywhere' else f'at {where}s'}": Setup(
        Planted(strength=strength, where=where)
    )
    for strength in (0.15, 0.5)
    for where in ("everywhere", "lock", "fork")
}
COVERAGE = {
    seeds: Setup(Planted(strength=0.3, temperature=0.97, eos_bias=0.5), jitter=ALL, seeds=(seeds, 1))
    for seeds in (2, 3, 5)
}
_ACTS_AT = {
    "everywhere": {"clear_lock", "close_lock", "fork", "diffuse", "clear_mixed", "mixed"},
    "lock": {"clear_lock", "close_lock"},
    "fork": {"fork"},
}
_PARAMETERS = {"ssd_strength": "strength", "temperature": "temperature", "eos_log_odds": "eos_bias"}


@dataclass(frozen=True)
class Rates:
    """How often verdicts were given, over the replicates of a setup."""

    categories: Counter[str]
    named: Counter[str]
    """components"""
    replicates: int
    located: int
    """self-distillation said to act where it was planted and nowhere else"""
    contradicted: int
    """train_sampling said to be another, though it is right"""
    worst_strength: float
    """largest error of the strength of a class that has positions, of the mean over replicates"""

    def rate(self, count: int) -> Interval:
        return wilson(count, self.replicates)

    @property
    def effects(self) -> Interval:
        """Any verdict other than none."""
        return self.rate(self.replicates - self.categories["none"])

    @property
    def ssd(self) -> Interval:
        """Self-distillation named, alone or in a mixture."""
        return self.rate(self.named["ssd"])


def rates(setup: Setup, replicates: int = REPLICATES) -> Rates:
    arms = in_processes(partial(_arm, setup), list(range(replicates)))
    verdicts = [arm["verdict"] for arm in arms]
    where = _ACTS_AT[setup.arm.where]
    errors: dict[str, list[float]] = {}
    for arm in arms:
        for entry in arm["shift"]["by_position_class"]:
            name = entry["position_class"]
            planted = setup.arm.strength if name in where else 0.0
            errors.setdefault(name, []).append(entry["ssd_strength"]["value"] - planted)
    return Rates(
        Counter(verdict["category"] for verdict in verdicts),
        Counter(component for verdict in verdicts for component in verdict["components"]),
        replicates,
        sum(set(verdict["position_classes"].get("ssd", ())) == where for verdict in verdicts),
        sum(verdict is not None and verdict.contradicted_by is not None for verdict in verdicts),
        max(abs(float(np.mean(error))) for error in errors.values()),
    )


def coverage(setup: Setup, replicates: int = REPLICATES) -> Iterator[tuple[str, Interval]]:
    """Of the arm's 95 % intervals: each parameter and each fraction, and how many replicates they cover.

    The true fractions are those of all simulated trainings together.
    """
    arms = in_processes(partial(_arm, setup), list(range(replicates)))
    for key, planted in _PARAMETERS.items():
        yield key, _covered([arm["shift"][key] for arm in arms], getattr(setup.arm, planted))
    for component in arms[0]["shift"]["components"]:
        entries = [arm["shift"]["components"][component] for arm in arms]
        total = np.mean([arm["shift"]["kl_trained_base"]["value"] for arm in arms])
        fraction = float(np.mean([entry["nats"]["value"] for entry in entries]) / total)
        yield f"fraction of {component}", _covered([entry["fraction"] for entry in entries], fraction)


def _covered(intervals: list[dict[str, float]], truth: float) -> Interval:
    return wilson(sum(entry["ci_low"] <= truth <= entry["ci_high"] for entry in intervals), len(intervals))


def one_seed_each(replicates: int = 20) -> Counter[str]:
    """What verdicts are about where each arm has one seed."""
    setup = Setup(Planted(strength=0.3), jitter=ALL, seeds=(1, 1))
    return Counter(arm["verdict"]["scope"] for arm in in_processes(partial(_arm, setup), list(range(replicates))))


def wrong_sampling(replicates: int = 10) -> Iterator[tuple[tuple[float, int, float], int]]:
    """Sampling parameters that differ from those of the probe, and in how many replicates the verdict says so."""
    for sampling in WRONG_SAMPLING:
        seeds = list(range(replicates))
        yield sampling, sum(in_processes(partial(_is_contradicted, sampling), seeds))


def _is_contradicted(sampling: tuple[float, int, float], seed: int) -> bool:
    torch.set_num_threads(1)
    base = baseline(120, 10, seed=seed, vocabulary=512)
    with TemporaryDirectory() as directory:
        arm = write(Path(directory) / "arm", base, distilled(base, 0.5, *sampling, seed=2 * seed))
        control = write(Path(directory) / "control", base, Planted(seed=2 * seed + 1).logits(base))
        verdict = attribute({"arm": [arm], "control": [control]}, "control").arms["arm"].verdict
    return verdict is not None and verdict.contradicted_by is not None


def few_problems(replicates: int = 20) -> Counter[str]:
    """Categories with 7 problems, where the strength is 0.6."""
    return rates(Setup(Planted(strength=0.6), seeds=(2, 2), problems=7, positions=40), replicates).categories


def _arm(setup: Setup, seed: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    with TemporaryDirectory() as directory:
        arm: dict[str, Any] = simulate(setup, Path(directory), seed)["arms"]["arm"]
    return arm


def format_rate(rate: Interval) -> str:
    return f"{100 * rate.value:.1f} % [{100 * rate.ci_low:.1f}, {100 * rate.ci_high:.1f}]"


def main() -> None:
    replicates = int(sys.argv[1]) if len(sys.argv) > 1 else REPLICATES
    shown: list[tuple[str, Callable[[Rates], Interval]]] = [
        ("any effect", lambda rate: rate.effects),
        ("self-distillation", lambda rate: rate.ssd),
    ]
    for name, setup in (NULLS | EFFECTS).items():
        result = rates(setup, replicates)
        print(
            f"{name}: {', '.join(f'{what} {format_rate(of(result))}' for what, of in shown)}; located"
            f" {result.located} of {replicates}, strengths off by at most {result.worst_strength:.3f},"
            f" contradicted {result.contradicted};"
            f" {dict(result.categories)}",
            flush=True,
        )
    for seeds, setup in COVERAGE.items():
        for name, rate in coverage(setup, replicates):
            print(f"{seeds} seeds, {name}: {format_rate(rate)}", flush=True)
    print(f"one seed each: {dict(one_seed_each())}; 7 problems: {dict(few_problems())}")
    for sampling, said in wrong_sampling():
        print(f"trained toward T, k, p = {sampling}: contradicted in {said} of 10")


if __name__ == "__main__":
    main()
