"""The claims about ``ssdfast eval``: grading on two workers, and simulated studies."""

from __future__ import annotations

from collections.abc import Iterator

import evaluation
import evaluation_simulations as simulations
from claim import Claim

LEVEL = 95.0
MAX_LINES = 10


def on_cpu() -> Iterator[Claim]:
    yield from grading()
    yield from intervals()
    yield from sequences()


def grading() -> Iterator[Claim]:
    speed = evaluation.speed()
    rounds = ", ".join(f"{rate:.0f}" for rate in speed.rounds)
    print(f"     grades per second by round: {rounds}; {100 * speed.quick:.0f} % of the pairs need no worker")
    print("     grades per second by kind: " + ", ".join(f"{kind} {rate:.0f}" for kind, rate in speed.by_kind.items()))
    what = f"grades per second, {speed.pairs:,} integers, fractions, sets and intervals, two workers"
    yield Claim(what, speed.per_second, 500, at_least=True)
    _print_some(
        f"gold {pair.gold}, {pair.answer} is {'correct' if pair.correct else 'incorrect'}" for pair in speed.misgraded
    )
    yield Claim("of these, pairs whose grade is not the constructed one", len(speed.misgraded), 0)
    hostile = evaluation.adversarial()
    _print_some(f"not contained: {name}" for name in hostile.failed)
    slowest = max(hostile.seconds, key=lambda name: hostile.seconds[name])
    print(f"     the slowest hostile answer, {slowest}, took {hostile.seconds[slowest]:.1f} s")
    count = len(hostile.seconds)
    limit = evaluation.CPU_SECONDS + evaluation.SLACK
    what = f"of {count} hostile answers, those that end within {limit:g} s and harm nothing"
    yield Claim(what, count - len(hostile.failed), count, at_least=True)
    equal, others = evaluation.champ_golds()
    _print_some(f"does not equal itself: {gold}" for gold in others)
    yield Claim("gold answers of CHAMP that equal themselves", equal, 270, at_least=True)
    cases, misses = evaluation.graded_by_hand()
    _print_some(misses)
    what = f"of {cases} answers graded by hand, those graded alike"
    yield Claim(what, 100 * (1 - len(misses) / cases), 99, "%", at_least=True)


def intervals() -> Iterator[Claim]:
    """The simulation's own standard error is 0.49 points."""
    for kind, fraction in simulations.coverage():
        print(f"     {kind}: {100 * fraction:.2f} % of {simulations.STUDIES:,} intervals hold the true value")
        yield Claim(f"distance of the coverage from {LEVEL:g} %: {kind}", abs(100 * fraction - LEVEL), 1, "points")
    for what, distance in evaluation.published():
        yield Claim(f"distance from the published interval: {what}", distance, 0.005, "points")


def sequences() -> Iterator[Claim]:
    for samples in (1, 4):
        null = simulations.sequential(0.0, simulations.NULL_STUDIES, samples)
        rate = null.rate
        print(
            f"     no true effect, {samples} per problem: a difference in {100 * rate.value:.2f} % "
            f"[{100 * rate.ci_low:.2f}, {100 * rate.ci_high:.2f}] of {null.studies:,} studies"
        )
        what = f"sequential test, {samples} per problem: differences reported where there is none"
        yield Claim(what, 100 * rate.value, 5, "%")
    effect = f"{100 * simulations.EFFECT:g} points"
    for samples in (1, 4):
        run = simulations.sequential(simulations.EFFECT, simulations.STUDIES, samples)
        sequential, fixed = (100 * n / run.studies for n in (run.differences, run.fixed_differences))
        print(
            f"     a true effect of {effect}, {samples} per problem: found in {sequential:.1f} % of {run.studies:,} "
            f"studies, by the fixed design in {fixed:.1f} %"
        )
        what = f"sequential test, {samples} per problem: samples saved at an effect of {effect}"
        yield Claim(what, 100 * run.saved, 20, "%", at_least=True)


def _print_some(lines: Iterator[str] | list[str]) -> None:
    for place, line in enumerate(lines):
        if place < MAX_LINES:
            print(f"     {line}")


def on_gpu() -> Iterator[Claim]:
    """There are none: the bars are those of two CPU cores."""
    return iter(())
