"""The claims about a study: synthetic models with a known cause, on two processes; its report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attribution
import report_page
from claim import Claim

from tests.attribution import cases


def on_cpu() -> Iterator[Claim]:
    truth = attribution.known_truth()
    for line in cases.confusion(truth.outcomes).splitlines():
        print(f"     {line}")
    for outcome in truth.outcomes:
        if outcome.category != outcome.case.kind:
            print(f"     {outcome.case} is classified as {outcome.category}")
    count = len(truth.outcomes)
    yield Claim(
        f"of {count} synthetic models with a known cause at 200 traces, classified correctly",
        100 * truth.correct,
        95,
        "%",
        True,
    )
    yield Claim("fraction of self-distillation in a mixture, largest error", truth.worst, 0.05)
    print(f"     where the residual is noise on the logits, which acts as a temperature: {truth.worst_on_logits:.3f}")
    null = attribution.null()
    rates = ", ".join(f"{name} {100 * rate:.1f}" for name, rate in null.by_metric.items())
    print(f"     of {attribution.PAIRS} pairs that differ by noise, p ≤ 0.05 without correction, in %: {rates}")
    yield Claim("pairs that differ by noise alone: an effect found", 100 * null.effects, attribution.NOMINAL, "%")
    most = max(null.by_metric.values())
    yield Claim("of one metric, at most, without correction", 100 * most, attribution.NOMINAL_BY_METRIC, "%")
    print(f"     {truth.seconds:.0f} s and {null.seconds:.0f} s")
    yield from page("a probe's page", report_page.probe_page())


def page(what: str, path: Path) -> Iterator[Claim]:
    timings = report_page.measured(path)
    what = f"{what}, {timings.traces} traces of {report_page.TOKENS:,} tokens"
    print(f"     longest task of opening {timings.opening:.0f} ms, of reading and searching {timings.reading:.0f} ms")
    yield Claim(f"{what}: size", timings.megabytes, 10, "MB")
    yield Claim("seconds from nothing to the first token", timings.seconds, 2, "s")
    yield Claim("longest task of scrolling, 0 where none took 50 ms", timings.scrolling, 200, "ms")


def on_gpu() -> Iterator[Claim]:
    """There are none: the bars are those of two CPU cores."""
    return iter(())
