"""The claims about ``ssdfast evaluate``: checks on two workers, and studies made up by seed."""

from __future__ import annotations

from collections.abc import Iterator

import evaluation
import evaluation_simulations as simulations
from claim import Claim

LEVEL = 95.0
SHOWN = 10


def on_cpu() -> Iterator[Claim]:
    yield from checking()
    yield from intervals()
    yield from sequences()


def checking() -> Iterator[Claim]:
    speed = evaluation.speed()
    rounds = ", ".join(f"{rate:.0f}" for rate in speed.rounds)
    print(f"     checks/s of the rounds: {rounds}; {100 * speed.quick:.0f} % of the pairs take no worker")
    print("     checks/s of one kind: " + ", ".join(f"{kind} {one:.0f}" for kind, one in speed.by_kind.items()))
    what = f"checks/s of {speed.pairs:,} integers, fractions, sets and intervals, two workers"
    yield Claim(what, speed.per_second, 500, at_least=True)
    _shown(f"gold {made.gold}, {made.answer} is {'right' if made.right else 'wrong'}" for made in speed.unlike)
    yield Claim("of them judged otherwise than they were made", len(speed.unlike), 0)
    hostile = evaluation.adversarial()
    _shown(f"not contained: {name}" for name in hostile.failed)
    slowest = max(hostile.seconds, key=lambda name: hostile.seconds[name])
    print(f"     the slowest hostile answer, {slowest}, took {hostile.seconds[slowest]:.1f} s")
    of = len(hostile.seconds)
    limit = evaluation.SECONDS + evaluation.SLACK
    what = f"of {of} hostile answers, those contained, in {limit:g} s each and with no harm done"
    yield Claim(what, of - len(hostile.failed), of, at_least=True)
    fine, others = evaluation.champ_golds()
    _shown(f"does not verify itself: {gold}" for gold in others)
    yield Claim("gold answers of CHAMP that verify themselves", fine, 270, at_least=True)
    cases, misses = evaluation.labelled()
    _shown(misses)
    what = f"of {cases} answers labelled by hand, those judged alike"
    yield Claim(what, 100 * (1 - len(misses) / cases), 99, "%", at_least=True)


def intervals() -> Iterator[Claim]:
    """The simulation's own standard error is 0.49 points."""
    for kind, share in simulations.coverage():
        print(f"     {kind}: {100 * share:.2f} % of {simulations.STUDIES:,} intervals hold the true value")
        yield Claim(f"coverage from {LEVEL:g} %: {kind}", abs(100 * share - LEVEL), 1, "points")
    for what, distance in evaluation.published():
        yield Claim(f"published interval, from ours: {what}", distance, 0.005, "points")


def sequences() -> Iterator[Claim]:
    for samples in (1, 4):
        null = simulations.sequential(0.0, simulations.NULL_STUDIES, samples)
        found = null.found_interval
        print(
            f"     no true effect, {samples} a problem: a finding in {100 * found.estimate:.2f} % "
            f"[{100 * found.low:.2f}, {100 * found.high:.2f}] of {null.studies:,} studies"
        )
        what = f"sequential test, {samples} a problem: findings where there is no effect"
        yield Claim(what, 100 * found.estimate, 5, "%")
    effect = f"{100 * simulations.EFFECT:g} points"
    for samples in (1, 4):
        run = simulations.sequential(simulations.EFFECT, simulations.STUDIES, samples)
        found_share, fixed = (100 * one / run.studies for one in (run.found, run.found_fixed))
        print(
            f"     a true effect of {effect}, {samples} a problem: found in {found_share:.1f} % of {run.studies:,} "
            f"studies, by the fixed design in {fixed:.1f} %"
        )
        what = f"sequential test, {samples} a problem: samples saved at an effect of {effect}"
        yield Claim(what, 100 * run.saved, 20, "%", at_least=True)


def _shown(lines: Iterator[str] | list[str]) -> None:
    for place, line in enumerate(lines):
        if place < SHOWN:
            print(f"     {line}")


def on_gpu() -> Iterator[Claim]:
    """There are none: the bars are those of two CPU cores."""
    return iter(())
