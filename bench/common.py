"""Shared by the benchmarks: timing in turns, and records with device and versions.

With SSDFAST_REHEARSAL=1 and TRITON_INTERPRET=1, a benchmark rehearses what it does on a GPU: toy sizes on this CPU, the
Triton kernels in Triton's interpreter, and fp16 instead of bf16, which the interpreter cannot multiply. The times mean
nothing. SSDFAST_RESULTS names another directory for the records.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch

import ssdfast.kernels  # noqa: F401  # before ROOT is on the path, so that an installed ssdfast is measured

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(os.environ.get("SSDFAST_RESULTS") or ROOT / "bench" / "results")
sys.path.insert(0, str(ROOT))  # for the tests' own tolerance

ON_GPU = torch.cuda.is_available()
REHEARSAL = os.environ.get("SSDFAST_REHEARSAL") == "1" and not ON_GPU
FOR_GPU = ON_GPU or REHEARSAL  # benchmarks, claims and records are those of a GPU
DEVICE = "cuda" if ON_GPU else "cpu"
HALF = torch.float16 if REHEARSAL else torch.bfloat16


def interleaved(calls: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Median seconds of each call. They take turns, so that a busy moment of the machine affects all of them."""
    seconds = 0 if REHEARSAL else seconds
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    start = time.perf_counter()
    repeats = 1 if REHEARSAL else 3
    while calls and (len(times[next(iter(calls))]) < repeats or time.perf_counter() - start < seconds):
        for name, call in calls.items():
            times[name].append(_timed(call))
    return {name: statistics.median(samples) for name, samples in times.items()}


def _timed(call: Callable[[], Any]) -> float:
    if ON_GPU:
        torch.cuda.synchronize()
    begin = time.perf_counter()
    call()
    if ON_GPU:
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def machine() -> dict[str, Any]:
    """Device, versions, commit and date of a record."""
    return {
        "device": torch.cuda.get_device_name() if ON_GPU else _processor(),
        "threads": torch.get_num_threads(),
        "isa": "AMX" if torch.cpu._is_amx_tile_supported() else torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": _commit(),
        "date": date.today().isoformat(),
        **({"rehearsal": True} if REHEARSAL else {}),
    }


def _commit() -> str:
    """The commit, with a + if the kernels were edited after it, or "unknown" outside a repository."""

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    commit = git("rev-parse", "--short", "HEAD")
    return (commit or "unknown") + ("+" if commit and git("status", "--porcelain", "--", "kernels", "csrc") else "")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        if cpuinfo.exists()
        else []
    )
    return f"{names[0]}, {len(names)} cores" if names else platform.processor() or platform.machine()


def record(name: str, rows: list[dict[str, Any]]) -> Path:
    """Writes one JSON line per row, with device and versions; those of a GPU go to a file of their own.

    What another kind of processor has measured there stays.
    """
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}{'-gpu' if FOR_GPU else ''}.jsonl"
    measured_on = machine()
    before = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    elsewhere = [r for r in before if any(r.get(key) != measured_on[key] for key in ("device", "isa"))]
    others = [r for r in elsewhere if r.get("value", 0) is not None]
    lines = [json.dumps(r) + "\n" for r in [*others, *({**measured_on, **row} for row in rows)]]
    path.write_text("".join(lines), encoding="utf-8")
    return path
