"""The README's numbers of ``ssdfast probe``: SmolLM2-135M, its fine-tuned twin, real traces."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import runner
import summary
from claim import Claim

SHORT, LONG = 4_096, 32_768
ROWS = 10_000_000


def on_cpu() -> Iterator[Claim]:
    small = runner.studied()
    large = runner.altered(small, "large-head", runner.with_large_head)
    for pair, vocabulary in ((small, "49,152"), (large, "151,936")):
        for dtype in runner.DTYPES:
            probe, bare = runner.added_time(pair, dtype)
            what = f"time added to forward passes and bare lm_head products, V {vocabulary}, {dtype}"
            yield Claim(what, probe / bare - 1, 0.1)
    yield from against_the_script(small, [runner.long_trace(SHORT), runner.held_out("baseline")], "49,152", 1.5)
    yield from against_the_script(large, [runner.held_out("baseline")], "151,936", 2.5)
    yield from memory(small)
    seconds, peak = summary.measure(ROWS)
    yield Claim(f"summary of {ROWS:,} positions", seconds, 20, "s")
    yield Claim("its process at its peak", peak / 1e9, 1, "GB")


def against_the_script(pair: runner.Pair, sources: list[Path], vocabulary: str, bar: float) -> Iterator[Claim]:
    """Start to end, models and all; where a long trace is among them it is measured alone, for its memory too."""
    ours = theirs = 0.0
    for i, source in enumerate(sources):
        out, script_out = runner.HOME / f"out-{i}", runner.HOME / f"script-{i}"
        shutil.rmtree(script_out, ignore_errors=True)
        script = runner.straightforward(pair, source, script_out)
        mine = runner.probe(pair, [source], out)
        ours, theirs = ours + mine.seconds, theirs + script.seconds
        column, difference = runner.worst_difference(out, script_out)
        yield Claim(f"{source.name}, V {vocabulary}: {column} differs from the script's by, in 1e-3", difference, 1)
        if source.name == f"trace-{SHORT}":
            peak, script_peak = (run.peak_bytes - pair.weight_bytes for run in (mine, script))
            what = f"peak memory of a {SHORT:,}-token trace, weights aside ({peak / 1e6:.0f} MB), of the script's"
            yield Claim(what, peak / script_peak, 0.25, "x")
    what = f"faster than the straightforward script, start to end, V {vocabulary}"
    yield Claim(what, theirs / ours, bar, "x", at_least=True)


def memory(small: runner.Pair) -> Iterator[Claim]:
    pair = runner.altered(small, "two-layers", runner.with_two_layers)
    peaks = {n: runner.probe(pair, [runner.long_trace(n)], runner.HOME / f"out-{n}").peak_bytes for n in (SHORT, LONG)}
    aside = {n: peak - pair.weight_bytes for n, peak in peaks.items()}
    what = f"peak memory of a {LONG:,}-token trace over that of {SHORT:,}, weights aside"
    yield Claim(f"{what} ({aside[LONG] / 1e6:.0f} MB)", aside[LONG] / aside[SHORT], 1.5, "x")


def on_gpu() -> Iterator[Claim]:
    """The bars are those of two cores."""
    return iter(())
