"""The claims about ``ssdfast eval``: grading on two workers, and intervals and tests on simulated studies."""

from __future__ import annotations

from collections.abc import Iterator

import evaluation
import evaluation_coverage
import evaluation_power
import evaluation_simulations as simulations
from claim import Claim

LEVEL = 95.0
SHOWN = 10


def on_cpu() -> Iterator[Claim]:
    yield from grading()
    yield from intervals()
    yield from edges()
    yield from powers()
    yield from sequences()


def grading() -> Iterator[Claim]:
    speed = evaluation.speed()
    rounds = ", ".join(f"{per_second:.0f}" for per_second in speed.rounds)
    kinds = ", ".join(f"{kind} {per_second:.0f}" for kind, per_second in speed.by_kind.items())
    print(f"     answers/s of the rounds: {rounds}; {100 * speed.quick_fraction:.0f} % of the pairs need no worker")
    print(f"     answers/s of one kind: {kinds}")
    what = f"answers graded/s, {speed.pairs:,} integers, fractions, sets and intervals, two workers"
    yield Claim(what, speed.per_second, 1500, at_least=True)
    _shown(
        f"gold {pair.gold}, {pair.answer} is {'correct' if pair.correct else 'incorrect'}" for pair in speed.misgraded
    )
    yield Claim("of them graded wrongly", len(speed.misgraded), 0)
    hostile = evaluation.adversarial()
    _shown(f"not contained: {name}" for name in hostile.failed)
    slowest = max(hostile.seconds, key=lambda name: hostile.seconds[name])
    print(f"     the slowest hostile answer, {slowest}, took {hostile.seconds[slowest]:.1f} s")
    count = len(hostile.seconds)
    limit = evaluation.CPU_SECONDS + evaluation.SLACK
    what = f"of {count} hostile answers, those contained, in {limit:g} s each and with no harm done"
    yield Claim(what, count - len(hostile.failed), count, at_least=True)
    fine, others = evaluation.champ_golds()
    _shown(f"does not equal itself: {gold}" for gold in others)
    yield Claim("gold answers of CHAMP that equal themselves", fine, 270, at_least=True)
    cases, misses = evaluation.graded_by_hand()
    _shown(misses)
    what = f"of {cases} answers graded by hand, those graded alike"
    yield Claim(what, 100 * (1 - len(misses) / cases), 99.4, "%", at_least=True)
    answers, lost, fooled = evaluation.kinds()
    _shown(lost + fooled)
    yield Claim(f"of {answers} answers of every kind, correct ones that are rejected", len(lost), 0)
    yield Claim("near misses among them that are accepted", len(fooled), 0)


def intervals() -> Iterator[Claim]:
    """The simulation's own standard error is 0.49 percentage points."""
    for kind, fraction in simulations.coverage():
        print(f"     {kind}: {100 * fraction:.2f} % of {simulations.STUDIES:,} intervals hold the true value")
        yield Claim(f"coverage from {LEVEL:g} %: {kind}", abs(100 * fraction - LEVEL), 1, "percentage points")
    for what, distance in evaluation.published():
        yield Claim(f"published interval, from ours: {what}", distance, 0.005, "percentage points")


def edges() -> Iterator[Claim]:
    """The extremes of all means and designs; a fraction of 4 % has a standard error of 0.44 percentage points."""
    for what, designs, fewest, most in (
        ("accuracy", evaluation_coverage.ACCURACIES, 93, 4),
        ("paired difference", evaluation_coverage.DIFFERENCES, 93, 4),
        ("pass@k", evaluation_coverage.PASSES, 91, 6),
    ):
        by_design: dict[str, list[evaluation_coverage.Cell]] = {}
        for cell in evaluation_coverage.cells(designs):
            print(f"     {what}, {cell}", flush=True)
            by_design.setdefault(f"{what}, {cell.problems} problems x {cell.samples}", []).append(cell)
        for design, members in by_design.items():
            lowest = min(cell.coverage for cell in members)
            side = max(max(cell.below, cell.above) for cell in members)
            yield Claim(f"lowest coverage: {design}", 100 * lowest, fewest, "%", at_least=True)
            yield Claim(f"most intervals on one side of the truth: {design}", 100 * side, most, "%")


def powers() -> Iterator[Claim]:
    """At a power of 80 %, the standard error of 2,000 studies is 0.9 percentage points."""
    by_source: dict[str, list[float]] = {}
    for effect in evaluation_power.stated():
        print(f"     {effect}", flush=True)
        by_source.setdefault(effect.source, []).append(100 * effect.power)
    for source, percents in by_source.items():
        for what, power in (("lowest", min(percents)), ("highest", max(percents))):
            claim = f"{what} power at the minimum detectable effect, {source}, from 80 %"
            # What 30 problems show of a variance varies, which costs some power on average.
            yield Claim(claim, abs(power - 80), 5 if source == "planned" else 8, "percentage points")


def sequences() -> Iterator[Claim]:
    for samples in (1, 4):
        null = simulations.sequential(0.0, simulations.NULL_STUDIES, samples)
        rate = null.difference_rate
        print(
            f"     no true difference, {samples} per problem: a difference found in {100 * rate.value:.2f} % "
            f"[{100 * rate.ci_low:.2f}, {100 * rate.ci_high:.2f}] of {null.studies:,} studies"
        )
        what = f"sequential test, {samples} per problem: differences reported where there is none"
        yield Claim(what, 100 * rate.value, 5, "%")
    effect = f"{100 * simulations.EFFECT:g} percentage points"
    for samples in (1, 4):
        run = simulations.sequential(simulations.EFFECT, simulations.STUDIES, samples)
        sequential, fixed = (100 * count / run.studies for count in (run.differences, run.differences_fixed))
        print(
            f"     a true difference of {effect}, {samples} per problem: found in {sequential:.1f} % of "
            f"{run.studies:,} studies, by the fixed design in {fixed:.1f} %"
        )
        what = f"sequential test, {samples} per problem: samples saved at a true difference of {effect}"
        yield Claim(what, 100 * run.saved, 20, "%", at_least=True)


def _shown(lines: Iterator[str] | list[str]) -> None:
    for index, line in enumerate(lines):
        if index < SHOWN:
            print(f"     {line}")


def on_gpu() -> Iterator[Claim]:
    """There are none: the bars are those of two CPU cores."""
    return iter(())
