"""The claims about a study: synthetic models with a known cause, on two processes; its report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attribution
import attribution_recipes as recipes
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
    yield Claim("pairs that differ by noise alone: a metric differs", 100 * null.metrics, attribution.NOMINAL, "%")
    most = max(null.by_metric.values())
    yield Claim("of one metric, at most, without correction", 100 * most, attribution.NOMINAL_BY_METRIC, "%")
    print(f"     {truth.seconds:.0f} s and {null.seconds:.0f} s")
    yield from of_recipes()
    yield from page("a probe's page", report_page.probe_page())


def of_recipes() -> Iterator[Claim]:
    """Recipes whose trainings differ: the rates of verdicts, and what the intervals cover."""
    for name, setup in recipes.NULLS.items():
        result = recipes.rates(setup)
        print(f"     {name}: any effect {recipes.format_rate(result.effects)}, {dict(result.categories)}")
        yield Claim(f"arms of one recipe, {name}: an effect found", 100 * result.effects.value, 5, "%")
        yield Claim(f"arms of one recipe, {name}: self-distillation named", 100 * result.ssd.value, 2.5, "%")
    for name, setup in recipes.EFFECTS.items():
        result = recipes.rates(setup)
        print(f"     {name}: located in {result.located} of {result.replicates}, {dict(result.categories)}")
        yield Claim(f"{name}, 3 + 3 seeds: self-distillation named", 100 * result.ssd.value, 95, "%", at_least=True)
        yield Claim(f"{name}, 3 + 3 seeds: largest error of a class's strength", result.worst_strength, 0.05)
        yield Claim(f"{name}, 3 + 3 seeds: a right setting called wrong", result.contradicted, 0)
    for seeds, setup in recipes.COVERAGE.items():
        for what, rate in recipes.coverage(setup):
            print(f"     {seeds} seeds, {what}: {recipes.format_rate(rate)}")
            yield Claim(
                f"{seeds} seeds, 95 % intervals, distance from 95 %: {what}", abs(100 * rate.value - 95), 2, "%"
            )
    yield Claim("1 + 1 seeds: verdicts about recipes", recipes.one_seed_each()["recipes"], 0)
    few = recipes.few_problems()
    yield Claim("7 problems: verdicts given", few.total() - few["undecided"], 0)
    for sampling, said in recipes.wrong_sampling():
        what = "trained toward T = {}, k = {}, p = {}, probed with another setting: said".format(*sampling)
        yield Claim(what, said, 10, "of 10", at_least=True)


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
