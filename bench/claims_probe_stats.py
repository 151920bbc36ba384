"""The claims about ``probe_stats``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from claim import Claim
from common import FOR_GPU, REHEARSAL, interleaved
from inputs import logits_pair, token_classes
from memory import bytes_of, peak_in_own_process
from probe_stats import ours, providers
from provider import gated
from roofline import measured_rates
from torch import Tensor

from ssdfast.kernels import ProbeSpec, ProbeStats, probe_stats

ROWS, VOCABULARY = 64, 151_936
GPU_SHAPE = (4, 1_500) if REHEARSAL else (8_192, 151_936)


def on_cpu() -> Iterator[Claim]:
    yield from speed()
    yield from memory()
    yield from precision()
    yield from on_gpu()


def speed() -> Iterator[Claim]:
    x = logits_pair(ROWS, VOCABULARY)
    by_name = {p.name: p for p in providers(x)}
    calls: dict[str, Callable[[], Any]] = {
        "logsumexp": partial(by_name["torch.logsumexp"].run, x),
        "one sweep": gated(by_name["ssdfast cpu, sweeps=1"], x),
        "all": gated(by_name["ssdfast cpu, sweeps=2"], x),
    }
    seconds = interleaved(calls, seconds=40)
    reference = interleaved({"reference": partial(by_name["eager torch"].run, x)}, 0)["reference"]
    yield Claim("one sweep, over torch.logsumexp on both models", seconds["one sweep"] / seconds["logsumexp"], 0.5, "x")
    yield Claim("every column, over torch.logsumexp on both models", seconds["all"] / seconds["logsumexp"], 1.5, "x")
    yield Claim("every column, against eager torch", reference / seconds["all"], 100, "x faster", at_least=True)


def memory() -> Iterator[Claim]:
    for rows in (ROWS, 8 * ROWS):
        extra = peak_in_own_process("probe_stats", "ssdfast cpu, sweeps=2", (rows, VOCABULARY))
        yield Claim(
            f"extra memory per thread, {rows} rows, outputs excluded", extra / torch.get_num_threads() / 2**20, 1, "MiB"
        )


def precision() -> Iterator[Claim]:
    base, trained, token = logits_pair(16, VOCABULARY)
    spec = ProbeSpec(token_class=token_classes(VOCABULARY))
    stats, oracle = _both(base, trained, token, spec)
    assert stats.pair
    assert oracle.pair
    for name in ("lse", "entropy"):
        yield Claim(f"relative error of {name}", relative(getattr(stats.base, name), getattr(oracle.base, name)), 1e-5)
    for name in ("kl_base_trained", "kl_trained_base", "js"):
        yield Claim(f"relative error of {name}", relative(getattr(stats.pair, name), getattr(oracle.pair, name)), 1e-5)
    differing = sum(
        int((getattr(stats.base, name) != getattr(oracle.base, name)).sum())
        for name in ("top_ids", "token_rank", "support_size", "nucleus_size")
    )
    yield Claim("ids, ranks and sizes that differ from float64", differing, 0)

    near = base.float() + 4.5e-4 * torch.randn(base.shape, generator=torch.Generator().manual_seed(2))
    stats, oracle = _both(base.float(), near, token, spec)
    assert stats.pair
    assert oracle.pair
    what = f"relative error of a KL of {oracle.pair.kl_base_trained.median():.1e}"
    yield Claim(what, relative(stats.pair.kl_base_trained, oracle.pair.kl_base_trained), 1e-2)
    peaked = torch.full((1, VOCABULARY), -20.0).scatter(1, torch.arange(20)[None], 8.0)
    stats, oracle = _both(peaked, peaked, token[:1], spec)
    what = f"relative error of a tail mass of {oracle.base.tail_mass.item():.1e}"
    yield Claim(what, relative(stats.base.tail_mass, oracle.base.tail_mass), 1e-2)


def _both(base: Tensor, trained: Tensor, token: Tensor, spec: ProbeSpec) -> tuple[ProbeStats, ProbeStats]:
    """The statistics of the CPU backend and of the oracle."""
    return probe_stats(base, trained, token, spec, backend="cpu"), probe_stats(
        base.double(), trained.double(), token, spec
    )


def relative(value: Tensor, oracle: Tensor) -> float:
    return float(((value - oracle).abs() / oracle.abs()).max())


def on_gpu() -> Iterator[Claim]:
    n, v = GPU_SHAPE
    fractions: dict[int, float] = {}
    nanoseconds = None
    if FOR_GPU:
        x = logits_pair(n, v)
        calls = {sweeps: gated(p, x) for sweeps, p in zip((1, 2), ours(x), strict=True)}
        rate = measured_rates().bytes_per_second
        seconds = interleaved({str(sweeps): call for sweeps, call in calls.items()}, seconds=3)
        fractions = {sweeps: sweeps * bytes_of(x[:2]) / seconds[str(sweeps)] / rate for sweeps in calls}
        default = partial(probe_stats, *x, ProbeSpec())
        nanoseconds = 1e9 * interleaved({"default": default}, seconds=1)["default"] / n
    for sweeps, what, bar in ((1, "columns of one sweep, one read", 0.8), (2, "every column, two reads", 0.7)):
        what = f"GPU, {n:,} x {v:,} bf16: {what}, of copy bandwidth"
        yield Claim(what, fractions.get(sweeps), bar, "x", at_least=True)
    yield Claim(f"GPU, {n:,} x {v:,} bf16: default columns, per pair of positions", nanoseconds, 650, "ns")
