"""The claims about ``ssdfast probe``: SmolLM2-135M, its fine-tuned twin, real traces."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import many_models
import runner
import summary
from claim import Claim

FEW, MEDIUM, SHORT, LONG = 512, 1_536, 4_096, 32_768  # tokens
ROWS = 10_000_000


def on_cpu() -> Iterator[Claim]:
    small = runner.studied()
    large = runner.altered(small, "large-head", runner.with_large_head)
    for pair, vocabulary in ((small, "49,152"), (large, "151,936")):
        for dtype in runner.DTYPES:
            took = runner.added_time(pair, runner.long_trace(FEW), dtype)
            what = f"time added to forward passes and bare lm_head products, V {vocabulary}, {dtype}"
            yield Claim(what, _added(took, "bare"), 0.1)
            if dtype == "bfloat16":
                print(f"     over products that are rounded to bf16 it would be {_added(took, 'rounded'):.3f}")
    yield from against_the_script(small, SHORT, "49,152", 1.5)
    yield from against_the_script(large, MEDIUM, "151,936", 2.5)
    yield from memory(small)
    yield from many_models.claims(small)
    seconds, peak = summary.measure(ROWS)
    yield Claim(f"summary of {ROWS:,} positions", seconds, 20, "s")
    yield Claim("peak memory of that summary", peak / 1e9, 1, "GB")


def _added(took: dict[str, float], products: str) -> float:
    return (took["table"] - took[products]) / (took["forward"] + took[products])


def against_the_script(pair: runner.Pair, tokens: int, vocabulary: str, bar: float) -> Iterator[Claim]:
    """The whole run, loading of models included, on one trace."""
    out, script_out = runner.HOME / "out", runner.HOME / "script"
    shutil.rmtree(script_out, ignore_errors=True)
    script = runner.straightforward(pair, runner.long_trace(tokens), script_out)
    probe = runner.probe(pair, [runner.long_trace(tokens)], out)
    what = f"a {tokens:,}-token trace, V {vocabulary}"
    column, fraction = runner.worst_column(out, script_out)
    print(f"     the column with the most values that differ: {column}")
    yield Claim(f"{what}: fraction of values that differ from the script's, in the worst column", fraction, 5e-3)
    yield Claim(
        f"{what}: speed-up over the script, start to end", script.seconds / probe.seconds, bar, "x", at_least=True
    )
    if tokens == SHORT:
        peak, script_peak = (run.peak_bytes - pair.weight_bytes for run in (probe, script))
        print(f"     peak memory: {peak / 1e6:.0f} MB, weights excluded")
        yield Claim(f"{what}: peak memory over the script's, weights excluded", peak / script_peak, 0.25)


def memory(small: runner.Pair) -> Iterator[Claim]:
    pair = runner.altered(small, "one-layer", runner.with_one_layer)
    peaks = {n: runner.probe(pair, [runner.long_trace(n)], runner.HOME / f"out-{n}").peak_bytes for n in (SHORT, LONG)}
    without_weights = {n: peak - pair.weight_bytes for n, peak in peaks.items()}
    print(f"     peak memory of {LONG:,} tokens: {without_weights[LONG] / 1e6:.0f} MB, weights excluded")
    what = f"peak memory of a {LONG:,}-token trace over that of {SHORT:,}, weights excluded"
    yield Claim(what, without_weights[LONG] / without_weights[SHORT], 1.5, "x")


def on_gpu() -> Iterator[Claim]:
    """There are none: the bars are those of two CPU cores."""
    return iter(())
