"""Synthetic studies for the intervals and the sequential test: ``python bench/evaluation_simulations.py``.

A problem's chance of a correct answer is drawn from a beta distribution of mean 65 %, 85 % of a sample's variance lying
between problems. The run has the baseline's chances except on a tenth of the problems, where they are drawn anew; an
effect shifts all of them towards 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from evaluation_coverage import scores

from ssdfast.evaluation.stats.intervals import Interval, accuracy, wilson
from ssdfast.evaluation.stats.paired_intervals import paired_difference
from ssdfast.evaluation.stats.pass_at_k import mean_pass_at_k
from ssdfast.evaluation.stats.sequential import SequentialTest

STUDIES = 2000
NULL_STUDIES = 10_000
MEAN, BETWEEN, CHANGED = 0.65, 0.85, 0.1
EFFECT = 0.05
MARGIN = 2.0
MAXIMUM, LOOKS = 1000, 5
_A, _B = MEAN * (1 / BETWEEN - 1), (1 - MEAN) * (1 / BETWEEN - 1)


@dataclass(frozen=True)
class SequentialStudies:
    """The results of many sequential studies, and of the fixed design that always samples the maximum."""

    differences: int
    """Studies that found the baseline or the run better."""
    equivalent: int
    """Studies that found no difference within the margin."""
    studies: int
    problems: float
    """The mean number of problems until the end."""
    differences_fixed: int
    """Studies in which the fixed design finds a difference."""

    @property
    def saved(self) -> float:
        """The fraction of the fixed design's samples that are saved."""
        return 1 - self.problems / MAXIMUM

    @property
    def difference_rate(self) -> Interval:
        """The fraction of studies that found a difference, with Wilson's interval."""
        return wilson(self.differences, self.studies)


def coverage(studies: int = STUDIES, seed: int = 0) -> Iterator[tuple[str, float]]:
    """Each kind of interval, and the fraction of studies whose 95 % interval holds the true value."""
    single = "Wilson, {} problems x 1 sample"
    for problems in (300, 1000):
        yield single.format(problems), _covered(MEAN, _accuracies(studies, problems, 1, seed))
    yield "accuracy, 30 problems x 10 samples", _covered(MEAN, _accuracies(studies, 30, 10, seed))
    yield "accuracy, 300 problems x 10 samples", _covered(MEAN, _accuracies(studies, 300, 10, seed))
    missed = np.prod([(_B + i) / (_A + _B + i) for i in range(5)])  # E (1-p)^5
    yield "pass@5, 300 problems x 10 samples", _covered(1 - float(missed), _passes(studies, 300, 10, 5, seed))
    yield "paired difference, 300 problems x 4 samples", _covered(EFFECT, _differences(studies, 300, 4, seed))
    yield "paired difference, 1000 problems x 1 sample", _covered(EFFECT, _differences(studies, 1000, 1, seed))


def sequential(effect: float, studies: int = STUDIES, samples: int = 1, seed: int = 0) -> SequentialStudies:
    """Studies of at most MAXIMUM problems, looked at LOOKS times, with a true difference of `effect`."""
    from scipy.stats import t

    rng = np.random.default_rng(seed)
    far = t.isf(0.025, MAXIMUM - 1)
    differences = equivalent = problems = fixed = 0
    for _ in range(studies):
        difference_P = _difference(rng, MAXIMUM, samples, effect)
        test = SequentialTest(MAXIMUM, MARGIN)
        for batch in np.split(difference_P, LOOKS):
            if test.look(batch).stopped:
                break
        end = test.looks[-1]
        differences += "better" in end.decision
        equivalent += end.decision == "equivalent"
        problems += end.problems
        error = difference_P.std(ddof=1) / np.sqrt(MAXIMUM)
        fixed += bool(abs(difference_P.mean()) > far * error)
    return SequentialStudies(differences, equivalent, studies, problems / studies, fixed)


def _chances(rng: np.random.Generator, problems: int) -> np.ndarray:
    return rng.beta(_A, _B, problems)


def _pair(rng: np.random.Generator, problems: int, effect: float) -> tuple[np.ndarray, np.ndarray]:
    """The chances of the baseline and of the run."""
    baseline_P = _chances(rng, problems)
    run_P = np.where(rng.random(problems) < CHANGED, _chances(rng, problems), baseline_P)
    return baseline_P, 1 - (1 - run_P) * (1 - effect / (1 - MEAN))


def _difference(rng: np.random.Generator, problems: int, samples: int, effect: float) -> np.ndarray:
    baseline_P, run_P = _pair(rng, problems, effect)
    return (rng.binomial(samples, run_P) - rng.binomial(samples, baseline_P)) / samples


def _accuracies(studies: int, problems: int, samples: int, seed: int) -> Iterator[Interval]:
    rng = np.random.default_rng(seed)
    for _ in range(studies):
        yield accuracy(scores(rng, _chances(rng, problems), samples))


def _passes(studies: int, problems: int, samples: int, k: int, seed: int) -> Iterator[Interval]:
    rng = np.random.default_rng(seed)
    for _ in range(studies):
        yield mean_pass_at_k(scores(rng, _chances(rng, problems), samples), k)


def _differences(studies: int, problems: int, samples: int, seed: int) -> Iterator[Interval]:
    rng = np.random.default_rng(seed)
    for _ in range(studies):
        baseline_P, run_P = _pair(rng, problems, EFFECT)
        yield paired_difference(scores(rng, baseline_P, samples), scores(rng, run_P, samples))


def _covered(truth: float, intervals: Iterator[Interval]) -> float:
    return float(np.mean([interval.ci_low <= truth <= interval.ci_high for interval in intervals]))


def main() -> None:
    print(f"coverage of 95 % intervals over {STUDIES:,} studies")
    for what, fraction in coverage():
        print(f"  {what:50} {100 * fraction:.2f} %")
    print(f"sequential test, {MAXIMUM:,} problems at most, {LOOKS} looks, margin of {MARGIN:g} percentage points")
    for effect, studies, samples in (
        (0.0, NULL_STUDIES, 1),
        (0.0, NULL_STUDIES, 4),
        (EFFECT, STUDIES, 1),
        (EFFECT, STUDIES, 4),
    ):
        run = sequential(effect, studies, samples)
        better = run.difference_rate
        print(
            f"  true effect {100 * effect:g} percentage points, {samples} samples, {studies:,} studies: difference in "
            f"{100 * better.value:.2f} % [{100 * better.ci_low:.2f}, {100 * better.ci_high:.2f}] (fixed design "
            f"{100 * run.differences_fixed / studies:.2f} %), equivalent in {100 * run.equivalent / studies:.1f} %, "
            f"samples saved {100 * run.saved:.1f} %"
        )


if __name__ == "__main__":
    main()
