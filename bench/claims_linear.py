"""The claims about ``linear_probe_stats``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import others
import torch
from claim import Claim
from common import FOR_GPU, REHEARSAL, interleaved
from gates import HiddenGate
from inputs import Hidden, hidden_pair
from linear_probe_stats import ours, providers
from memory import peak_in_own_process, peak_on_gpu, python
from probe_stats import ONE_SWEEP
from provider import GATE_ROWS, SLOW_ROWS, gated
from torch import Tensor

from ssdfast.kernels import ProbeSpec, ProbeStats, linear_probe_stats

SMALL_MODEL = 49_152, 576
LARGE_MODEL = 151_936, 1_024
GPU_MODEL = (1_500, 64) if REHEARSAL else (248_320, 2_560)
GPU_ROWS, MANY_GPU_ROWS = (4, 6) if REHEARSAL else (4_096, 32_768)
MOST_EXTRA = 64
MOST_EXTRA_TWO_SWEEPS = 1_280  # MB on a GPU: blocks of 512 rows of both models' float32 logits


def on_cpu() -> Iterator[Claim]:
    yield from speed()
    yield from memory()
    yield from large()
    yield from precision()
    yield from repeatability()
    yield from on_gpu()
    print("\nThe GPU kernels compiled ahead of time:\n" + python("-m", "tests.kernels.resources"))


def speed() -> Iterator[Claim]:
    x = hidden_pair(256, *SMALL_MODEL)
    by_name = {p.name: p for p in providers(x)}
    calls: dict[str, Callable[[], Any]] = {
        "bare": partial(by_name["bare matmuls, float32 logits"].run, x),
        "all": gated(by_name["ssdfast cpu, sweeps=2"], x),
    }
    seconds = interleaved(calls, seconds=40)
    yield Claim(
        _what("every column, over the bare matmuls", 256, SMALL_MODEL), seconds["all"] / seconds["bare"], 1.15, "x"
    )


def memory() -> Iterator[Claim]:
    peaks = {}
    for n in (256, 2_048, 16_384):
        peaks[n] = peak_in_own_process("linear_probe_stats", "ssdfast cpu, sweeps=2", (n, *SMALL_MODEL)) / 1e6
        yield Claim(_what("extra memory, outputs excluded", n, SMALL_MODEL), peaks[n], MOST_EXTRA, "MB")
    yield Claim("memory at N 16,384 over that at N 2,048", peaks[16_384] / peaks[2_048], 1.1, "x")


def large() -> Iterator[Claim]:
    """Eager torch takes a tenth of a second per row here, so it is timed on a few rows and scaled."""
    n = 4_096
    x = hidden_pair(n, *LARGE_MODEL)
    few = x.rows(SLOW_ROWS)
    eager = partial(others.eager, others.Float32Logits(x), ProbeSpec())
    HiddenGate(x).plain(eager(few.rows(GATE_ROWS)))
    fused = gated(list(ours(x))[-1], x)
    seconds = interleaved({"fused": fused}, 0)["fused"] / n
    eager_seconds = interleaved({"eager": partial(eager, few)}, 0)["eager"] / SLOW_ROWS
    what = _what(f"faster than chunked eager torch ({SLOW_ROWS} of its rows)", n, LARGE_MODEL)
    yield Claim(what, eager_seconds / seconds, 3, "x", at_least=True)
    extra = peak_in_own_process("linear_probe_stats", "ssdfast cpu, sweeps=2", (n, *LARGE_MODEL))
    yield Claim(_what("extra memory, outputs excluded", n, LARGE_MODEL), extra / 1e6, MOST_EXTRA, "MB")


def precision() -> Iterator[Claim]:
    x = hidden_pair(16, *SMALL_MODEL)
    near = x._replace(
        hidden_trained_NH=(x.hidden_base_NH + 1 / 16 * (torch.arange(SMALL_MODEL[1]) < 4)).bfloat16(),
        head_trained_VH=x.head_base_VH,
    )
    for inputs in (x, near):
        pair, oracle_pair = linear_probe_stats(*inputs, ONE_SWEEP, backend="cpu").pair, _float64(inputs).pair
        assert pair
        assert oracle_pair
        for column in ("kl_base_trained", "kl_trained_base"):
            want = getattr(oracle_pair, column)
            error = (getattr(pair, column) - want).abs() / (2e-7 + 1e-4 * want)
            what = f"one sweep, error of {column}, median {want.median():.0e}, over 2e-7 + 1e-4 relative"
            yield Claim(what, float(error.max()), 1, "x")
    rough = _off_grid(x)
    stats, oracle = linear_probe_stats(*rough, ProbeSpec(), backend="cpu"), _float64(rough)
    for name in ("lse", "entropy"):
        error = (getattr(stats.base, name) - getattr(oracle.base, name)).abs() / getattr(oracle.base, name)
        yield Claim(f"relative error of {name}, logits that round", float(error.max()), 1e-5)


def _off_grid(x: Hidden) -> Hidden:
    """The same but for a hundredth: here the sums of the logits round, in an order of the backend's own."""
    a, head_base, b, head_trained = ((tensor * 1.01).to(tensor.dtype) for tensor in x[:4])
    return Hidden(a, head_base, b, head_trained, x.token_N)


def _float64(x: Hidden) -> ProbeStats:
    double = (
        x.hidden_base_NH.double(),
        x.head_base_VH.double(),
        x.hidden_trained_NH.double(),
        x.head_trained_VH.double(),
        x.token_N,
    )
    return linear_probe_stats(*double, ProbeSpec(), backend="reference")


def repeatability() -> Iterator[Claim]:
    rough = _off_grid(hidden_pair(256, *SMALL_MODEL))
    threads = torch.get_num_threads()
    first = linear_probe_stats(*rough, backend="cpu")
    differing = sum(_differing(first, linear_probe_stats(*rough, backend="cpu")) for _ in range(2))
    yield Claim("columns with other bits in two repetitions", differing, 0)
    torch.set_num_threads(1)
    single = linear_probe_stats(*rough, backend="cpu")
    torch.set_num_threads(threads)
    yield Claim(f"columns with other bits on 1 thread than on {threads}", _differing(first, single), 0)


def _differing(first: ProbeStats, second: ProbeStats) -> int:
    def bits(stats: ProbeStats) -> list[Tensor]:
        groups = (stats.base, stats.trained, stats.pair)
        return [column.contiguous().view(torch.uint8) for group in groups for column in vars(group).values()]

    return sum(not torch.equal(x, y) for x, y in zip(bits(first), bits(second), strict=True))


def on_gpu() -> Iterator[Claim]:
    ratios: dict[int, float] = {}
    peaks: dict[int, float] = {}
    if FOR_GPU:
        x = hidden_pair(GPU_ROWS, *GPU_MODEL)
        calls: dict[str, Callable[[], Any]] = {str(p.name[-1]): gated(p, x) for p in ours(x)}
        seconds = interleaved({**calls, "bare": partial(_bare, x)}, seconds=4)
        ratios = {int(sweeps): seconds[sweeps] / seconds["bare"] for sweeps in calls}
        x = hidden_pair(MANY_GPU_ROWS, *GPU_MODEL)
        peaks = {int(p.name[-1]): peak_on_gpu(partial(p.run, x)) / 1e6 for p in ours(x)}
    for sweeps, what, bar in ((1, "columns of one sweep", 1.25), (2, "every column", 1.8)):
        what = _what(f"GPU, {what}, over the bare 16-bit matmuls", GPU_ROWS, GPU_MODEL)
        yield Claim(what, ratios.get(sweeps), bar, "x")
    for sweeps, bar in ((1, 256), (2, MOST_EXTRA_TWO_SWEEPS)):
        what = _what(f"GPU, extra memory, outputs excluded, sweeps={sweeps}", MANY_GPU_ROWS, GPU_MODEL)
        yield Claim(what, peaks.get(sweeps), bar, "MB")


def _bare(x: Hidden) -> None:
    """bf16 in and out, the fastest that torch does; the results are dropped."""
    x.hidden_base_NH @ x.head_base_VH.T
    x.hidden_trained_NH @ x.head_trained_VH.T


def _what(what: str, n: int, model: tuple[int, int]) -> str:
    return f"{what}, N {n:,} V {model[0]:,} H {model[1]:,}"
