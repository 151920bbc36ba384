"""How often 95 % intervals hold the truth, near 0 and 1 too, and on which side they miss.

``python bench/evaluation_coverage.py`` prints every cell. Chances of problems are drawn from beta distributions of a
given mean and intraclass correlation. Of a pair, the run has the baseline's chances on all but a fraction of the
problems, where they are drawn anew; an effect turns wrong answers right (or right ones wrong) with the same chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from ssdfast.evaluation.stats.intervals import Interval, accuracy
from ssdfast.evaluation.stats.paired_intervals import paired_difference
from ssdfast.evaluation.stats.pass_at_k import mean_pass_at_k
from ssdfast.evaluation.stats.scores import Scores

STUDIES = 2000
WORKERS = 2
SEVERAL = ((30, 16), (100, 4))
SINGLE = ((300, 1), (100, 1))
MEANS = (0.02, 0.1, 0.5, 0.9, 0.98)
CORRELATIONS = (0.02, 0.1, 0.3, 0.6)
PAIRS = ((0.6, 0.1), (0.2, 0.3))
"""The intraclass correlation, and the fraction of problems with new chances."""
EFFECTS = {0.1: (0.05,), 0.5: (0.0, 0.1), 0.9: (0.0, 0.05), 0.98: (0.0, 0.015, -0.05)}
"""The effects at each mean. A loss near 1 is a gain near 0, mirrored."""


@dataclass(frozen=True)
class Cell:
    """The fractions of a design's intervals that lie below and above the truth."""

    design: str
    problems: int
    samples: int
    below: float
    above: float

    @property
    def coverage(self) -> float:
        return 1 - self.below - self.above

    def __str__(self) -> str:
        return (
            f"{self.design:70} {100 * self.coverage:6.2f} % "
            f"(below the truth {100 * self.below:.2f} %, above it {100 * self.above:.2f} %)"
        )


@dataclass(frozen=True)
class Design:
    problems: int
    samples: int
    mean: float
    correlation: float

    def __str__(self) -> str:
        return (
            f"{self.problems} problems x {self.samples}, mean {100 * self.mean:g} %, correlation {self.correlation:g}"
        )


@dataclass(frozen=True)
class Accuracy(Design):
    @property
    def truth(self) -> float:
        return self.mean

    def interval(self, rng: np.random.Generator) -> Interval:
        return accuracy(scores(rng, chances(rng, self.problems, self.mean, self.correlation), self.samples))


@dataclass(frozen=True)
class Pass(Design):
    k: int

    @property
    def truth(self) -> float:
        size = 1 / self.correlation - 1
        missed = np.prod([((1 - self.mean) * size + i) / (size + i) for i in range(self.k)])  # E (1-p)^k
        return 1 - float(missed)

    def interval(self, rng: np.random.Generator) -> Interval:
        chance_P = chances(rng, self.problems, self.mean, self.correlation)
        return mean_pass_at_k(scores(rng, chance_P, self.samples), self.k)

    def __str__(self) -> str:
        return f"pass@{self.k}, {super().__str__()}"


@dataclass(frozen=True)
class Difference(Design):
    changed: float
    effect: float

    @property
    def truth(self) -> float:
        return self.effect

    def interval(self, rng: np.random.Generator) -> Interval:
        runs = pair(rng, self.problems, self.samples, self.mean, self.correlation, self.changed, self.effect)
        return paired_difference(*runs)

    def __str__(self) -> str:
        return f"{super().__str__()}, {100 * self.changed:g} % changed, effect {100 * self.effect:+g}"


ACCURACIES = [Accuracy(*size, mean, rho) for size in SEVERAL for mean in MEANS for rho in CORRELATIONS]
DIFFERENCES = [
    Difference(*size, mean, rho, changed, effect)
    for size in (*SEVERAL, *SINGLE)
    for rho, changed in PAIRS
    for mean, effects in EFFECTS.items()
    for effect in effects
]
PASSES = [Pass(*SEVERAL[0], mean, rho, k) for k in (2, 4, 10) for mean in (0.02, 0.5, 0.9) for rho in (0.1, 0.6)]


def cells(designs: Sequence[Accuracy | Difference | Pass]) -> Iterator[Cell]:
    """Each design in its order, several at a time."""
    with ProcessPoolExecutor(WORKERS) as pool:
        yield from pool.map(_cell, designs)


def chances(rng: np.random.Generator, problems: int, mean: float, correlation: float) -> np.ndarray:
    size = 1 / correlation - 1
    return rng.beta(mean * size, (1 - mean) * size, problems)


def scores(rng: np.random.Generator, chance_P: np.ndarray, samples: int) -> Scores:
    problems = len(chance_P)
    score_N = (rng.random((problems, samples)) < chance_P[:, None]).astype(np.float64).ravel()
    return Scores(tuple(map(str, range(problems))), np.full(problems, samples), score_N)


def pair(
    rng: np.random.Generator,
    problems: int,
    samples: int,
    mean: float,
    correlation: float,
    changed: float,
    effect: float,
) -> tuple[Scores, Scores]:
    """A baseline and a run that differ by `effect` in the mean of many problems."""
    baseline_P = chances(rng, problems, mean, correlation)
    run_P = np.where(rng.random(problems) < changed, chances(rng, problems, mean, correlation), baseline_P)
    run_P = 1 - (1 - run_P) * (1 - effect / (1 - mean)) if effect > 0 else run_P * (1 + effect / mean)
    return scores(rng, baseline_P, samples), scores(rng, run_P, samples)


def _cell(design: Accuracy | Difference | Pass) -> Cell:
    rng, truth = np.random.default_rng(0), design.truth
    intervals = [design.interval(rng) for _ in range(STUDIES)]
    below = np.mean([interval.ci_high < truth - 1e-12 for interval in intervals])
    above = np.mean([interval.ci_low > truth + 1e-12 for interval in intervals])
    return Cell(str(design), design.problems, design.samples, float(below), float(above))


def main() -> None:
    for what, designs in (("accuracy", ACCURACIES), ("paired difference", DIFFERENCES), ("pass@k", PASSES)):
        print(f"{what}: coverage of {STUDIES:,} intervals")
        for cell in cells(designs):
            print(f"  {cell}", flush=True)


if __name__ == "__main__":
    main()
