"""What every benchmark shares: inputs, fair timing, and a record that says where a number came from."""

from __future__ import annotations

import json
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
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
sys.path.insert(0, str(ROOT))  # the gate is the tests' own table and tolerance

from tests.kernels.cases import language_like  # noqa: E402


def logits_pair(n: int, v: int, dtype: torch.dtype, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Logits [n, v] of a baseline and of a trained model, and the baseline's likeliest tokens.

    Seven rows of eight have a few likely tokens over a broad tail, as a language model mostly does; the eighth has
    none, so that its nucleus runs to tens of thousands of tokens. The models differ by noise of 0.3 in every logit.
    """
    g = torch.Generator().manual_seed(0)
    a = language_like(n, v, g)
    a[::8] = torch.randn(a[::8].shape, generator=g) * 2
    b = a + 0.3 * torch.randn(n, v, generator=g)
    return a.to(device, dtype), b.to(device, dtype), a.argmax(1).to(device)


def token_classes(v: int, classes: int = 12) -> Tensor:
    """A class for each token; nine of ten are in class 0, as most of a real vocabulary is of none in particular."""
    g = torch.Generator().manual_seed(1)
    drawn = torch.randint(0, classes, (v,), generator=g)
    return torch.where(torch.rand(v, generator=g) < 0.9, 0, drawn).to(torch.uint8)


def interleaved(calls: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Median seconds of each call. They take turns, so that a busy moment of the machine meets all of them."""
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    start = time.perf_counter()
    while len(times[next(iter(calls))]) < 3 or time.perf_counter() - start < seconds:
        for name, call in calls.items():
            times[name].append(_timed(call))
    return {name: statistics.median(found) for name, found in times.items()}


def _timed(call: Callable[[], Any]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    begin = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def machine() -> dict[str, Any]:
    """Device, versions, commit and day, to stand beside a number."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else _processor(),
        "threads": torch.get_num_threads(),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit.strip(),
        "date": date.today().isoformat(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        if cpuinfo.exists()
        else []
    )
    return f"{names[0]}, {len(names)} cores" if names else platform.processor() or platform.machine()


def record(name: str, rows: list[dict[str, Any]]) -> Path:
    """Write one JSON line a row, each with where it was measured."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.jsonl"
    where = machine()
    path.write_text("".join(json.dumps({**row, **where}) + "\n" for row in rows), encoding="utf-8")
    return path
