"""The README's numbers of a study: models of known making told apart, on two processes."""

from __future__ import annotations

from collections.abc import Iterator

import attribution
from claim import Claim

from tests.attribution import cases


def on_cpu() -> Iterator[Claim]:
    truth = attribution.known_truth()
    for line in cases.confusion(truth.judged).splitlines():
        print(f"     {line}")
    for one in truth.judged:
        if one.category != one.case.kind:
            print(f"     {one.case} is named {one.category}")
    count = len(truth.judged)
    yield Claim(f"of {count} models of known making at 200 traces, named rightly", 100 * truth.right, 95, "%", True)
    yield Claim("share of self-distillation in a mixture, farthest from the planted one", truth.worst, 0.05)
    print(f"     where the drift is noise on the logits, which heats on average: {truth.worst_on_logits:.3f}")
    null = attribution.null()
    rates = ", ".join(f"{name} {100 * rate:.1f}" for name, rate in null.by_measure.items())
    print(f"     of {attribution.PAIRS} pairs that differ by noise, p ≤ 0.05 without correction, in %: {rates}")
    yield Claim("pairs that differ by noise alone: an effect found", 100 * null.effects, attribution.NOMINAL, "%")
    most = max(null.by_measure.values())
    yield Claim("of one measure, the most often, without correction", 100 * most, attribution.NOMINAL_OF_MEASURES, "%")
    print(f"     {truth.seconds:.0f} s and {null.seconds:.0f} s")


def on_gpu() -> Iterator[Claim]:
    """The bars are those of two cores."""
    return iter(())
