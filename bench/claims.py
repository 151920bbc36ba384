"""Regenerate every number that the README claims: ``python bench/claims.py probe-stats [--no-demo]``.

Prints each figure beside its bar and exits 1 where one falls short.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from common import ROOT, interleaved, logits_pair, machine, record, token_classes
from probe_stats import ONE_SWEEP, everything, gate
from torch import Tensor

from ssdfast.kernels import ProbeSpec, probe_stats

ROWS, VOCABULARY, THREADS = 64, 151_936, 2


@dataclass(frozen=True)
class Claim:
    """A measured figure and the bar that it has to stay under, or over."""

    what: str
    value: float
    bar: float
    unit: str = ""
    at_least: bool = False

    @property
    def holds(self) -> bool:
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        mark = "ok  " if self.holds else "FAIL"
        return f"{mark} {self.what:66} {self.value:10.3g} {sign} {self.bar:g} {self.unit}"


def probe_stats_claims(with_demo: bool) -> Iterator[Claim]:
    yield from speed()
    yield from memory()
    yield from precision()
    if with_demo:
        yield from demo()


def speed() -> Iterator[Claim]:
    a, b, token = logits_pair(ROWS, VOCABULARY, torch.bfloat16)
    spec = everything(VOCABULARY)

    def cpu(s: ProbeSpec):
        return lambda: probe_stats(a, b, token, s, backend="cpu")

    for s in (ONE_SWEEP, spec):
        gate(lambda a, b, token, s: probe_stats(a, b, token, s, backend="cpu"), a, b, token, s)
    calls = {
        "logsumexp": lambda: (torch.logsumexp(a, 1), torch.logsumexp(b, 1)),
        "one sweep": cpu(ONE_SWEEP),
        "all": cpu(spec),
    }
    seconds = interleaved(calls, seconds=40)
    reference = interleaved({"reference": lambda: probe_stats(a, b, token, spec, backend="reference")}, 0)["reference"]
    yield Claim("one sweep, over torch.logsumexp on both models", seconds["one sweep"] / seconds["logsumexp"], 0.5, "x")
    yield Claim("every column, over torch.logsumexp on both models", seconds["all"] / seconds["logsumexp"], 1.5, "x")
    yield Claim("every column, against the eager reference", reference / seconds["all"], 100, "x faster", at_least=True)


def memory() -> Iterator[Claim]:
    for rows in (ROWS, 8 * ROWS):
        extra = json.loads(_python("-c", _MEMORY, str(rows), str(VOCABULARY), str(THREADS)))
        yield Claim(f"extra memory a thread, {rows} rows, outputs apart", extra / THREADS / 2**20, 1, "MiB")


# A process of its own: the peak of resident memory over one call, less what stood before it and the results.
_MEMORY = """
import ctypes, sys, torch
sys.path[:0] = ["bench"]
from common import logits_pair
from probe_stats import everything
from ssdfast.kernels import probe_stats
rows, v, threads = map(int, sys.argv[1:])
torch.set_num_threads(threads)
def resident(what):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what)) * 1024
small = logits_pair(8, 500, torch.bfloat16)
probe_stats(*small, everything(500), backend="cpu")
a, b, token = logits_pair(rows, v, torch.bfloat16)
spec = everything(v)
ctypes.CDLL(None).malloc_trim(0)  # or the call could use memory that is free but still counted
open("/proc/self/clear_refs", "w").write("5")
before = resident("VmRSS")
stats = probe_stats(a, b, token, spec, backend="cpu")
peak = resident("VmHWM")
columns = [c for group in (stats.a, stats.b, stats.pair) for c in vars(group).values()]
print(max(0, peak - before - sum(c.numel() * c.element_size() for c in columns)))
"""


def precision() -> Iterator[Claim]:
    a, b, token = logits_pair(16, VOCABULARY, torch.bfloat16)
    spec = ProbeSpec(token_class=token_classes(VOCABULARY))
    mine, oracle = _both(a, b, token, spec)
    for name in ("lse", "entropy"):
        yield Claim(f"relative error of {name}", _relative(getattr(mine.a, name), getattr(oracle.a, name)), 1e-5)
    for name in ("kl_ab", "kl_ba", "js"):
        yield Claim(f"relative error of {name}", _relative(getattr(mine.pair, name), getattr(oracle.pair, name)), 1e-5)
    wrong = sum(
        int((getattr(mine.a, name) != getattr(oracle.a, name)).sum())
        for name in ("top_ids", "token_rank", "support_size", "nucleus_size")
    )
    yield Claim("ids, ranks and sizes that differ from float64", wrong, 0)

    near = a.float() + 4.5e-4 * torch.randn(a.shape, generator=torch.Generator().manual_seed(2))
    mine, oracle = _both(a.float(), near, token, spec)
    yield Claim(
        f"relative error of a KL of {oracle.pair.kl_ab.median():.1e}",
        _relative(mine.pair.kl_ab, oracle.pair.kl_ab),
        1e-2,
    )
    peaked = torch.full((1, VOCABULARY), -20.0).scatter(1, torch.arange(20)[None], 8.0)
    mine, oracle = _both(peaked, peaked, token[:1], spec)
    yield Claim(
        f"relative error of a tail mass of {oracle.a.tail_mass.item():.1e}",
        _relative(mine.a.tail_mass, oracle.a.tail_mass),
        1e-2,
    )


def _both(a: Tensor, b: Tensor, token: Tensor, spec: ProbeSpec):
    return probe_stats(a, b, token, spec, backend="cpu"), probe_stats(a.double(), b.double(), token, spec)


def _relative(value: Tensor, oracle: Tensor) -> float:
    return float(((value - oracle).abs() / oracle.abs()).max())


def demo() -> Iterator[Claim]:
    with tempfile.TemporaryDirectory() as directory:
        for run, bar in (("the demo", 240), ("the demo again", 20)):
            start = time.perf_counter()
            peak = json.loads(_python("-c", _DEMO, directory).splitlines()[-1])
            yield Claim(f"{run}, from installed packages to the report", time.perf_counter() - start, bar, "s")
            if run == "the demo":
                yield Claim("peak memory of the demo", peak / 2**30, 6, "GiB")


_DEMO = """
import resource, sys
from ssdfast.cli import run
code = run(["demo", "--out", sys.argv[1] + "/demo"])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
sys.exit(code)
"""


def _python(*args: str) -> str:
    done = subprocess.run(
        [sys.executable, *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(THREADS)},
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(args)[:60]} failed:\n{done.stderr}")
    return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("topic", choices=["probe-stats"])
    parser.add_argument("--no-demo", action="store_true", help="leave out the minutes-long demo")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    print(f"{ROWS} rows of {VOCABULARY:,} bf16 logits, two models, {THREADS} threads\n{machine()}\n")
    claims = []
    for claim in probe_stats_claims(not args.no_demo):
        print(claim, flush=True)
        claims.append(claim)
    rows = [{"claim": c.what, "value": c.value, "bar": c.bar, "unit": c.unit, "holds": c.holds} for c in claims]
    record(f"claims-{args.topic}", rows)
    return 0 if all(c.holds for c in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
