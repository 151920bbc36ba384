"""What the kernels do on a GPU, by its counters: ``python bench/profile_kernels.py``.

Nsight Compute (``ncu``), where it is installed and may read the counters, gives instructions, bytes from memory, time
and registers of each launch of ``probe_stats``, ``linear_probe_stats`` and ``soft_label_ce``; the clocks stay.
Elsewhere torch's profiler gives the time alone. The numbers calibrate the model of the machine code. With --run it
launches the kernels, for ncu to watch.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import linear_probe_stats
import probe_stats
import soft_label_ce
import torch
from common import ON_GPU, REHEARSAL, ROOT, record

ROWS = 4 if REHEARSAL else 1_024
METRICS = {
    "gpu__time_duration.sum": "nanoseconds",
    "smsp__inst_executed.sum": "warp_instructions",
    "dram__bytes_read.sum": "bytes_read",
    "dram__bytes_write.sum": "bytes_written",
    "launch__registers_per_thread": "registers",
    "launch__grid_size": "programs",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "occupancy_percent",
}
UNITS = {"byte": 1, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9, "nsecond": 1, "ns": 1, "usecond": 1e3, "us": 1e3,
         "msecond": 1e6, "ms": 1e6, "second": 1e9, "s": 1e9}  # fmt: skip


def calls() -> Iterator[tuple[str, Callable[[], Any]]]:
    """What is profiled; each call runs twice, the first time to compile."""
    vocabulary = probe_stats.SHAPES[0][1]
    logits = probe_stats.inputs(ROWS, vocabulary)
    yield from ((f"probe_stats {p.name}", lambda p=p: p.run(logits)) for p in probe_stats.ours(logits))
    hidden = linear_probe_stats.inputs(ROWS, *linear_probe_stats.SHAPES[0][1:])
    yield from ((f"linear_probe_stats {p.name}", lambda p=p: p.run(hidden)) for p in linear_probe_stats.ours(hidden))
    step = soft_label_ce.inputs(ROWS, *soft_label_ce.GPU_MODEL)
    backend = probe_stats.fast_backends()[0]
    yield "soft_label_ce", lambda: soft_label_ce.ours(step, backend)


def run() -> None:
    for _, call in calls():
        call()
        call()
    if ON_GPU:
        torch.cuda.synchronize()


def with_counters(ncu: str) -> list[dict[str, Any]]:
    """A row for each kernel and grid: the medians over its launches. Raises RuntimeError where ncu fails."""
    command = [
        ncu, "--csv", "--page", "raw", "--clock-control", "none", "--metrics", ",".join(METRICS), sys.executable,
        "bench/profile_kernels.py", "--run",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    if done.returncode or '"Kernel Name"' not in done.stdout:
        raise RuntimeError(f"ncu: {(done.stderr or done.stdout).strip()[-500:]}")
    return parsed(done.stdout)


def parsed(output: str) -> list[dict[str, Any]]:
    """The rows of ncu's raw page: a line of names, one of units, and one for each launch."""
    lines = output.splitlines()
    start = next(i for i, line in enumerate(lines) if '"Kernel Name"' in line)
    reader = csv.DictReader(io.StringIO("\n".join(lines[start:])))
    units = next(reader)
    launches: dict[tuple[str, str], list[dict[str, float]]] = {}
    for line in reader:
        values = {
            name: float(line[metric].replace(",", "")) * UNITS.get(units[metric], 1)
            for metric, name in METRICS.items()
            if line.get(metric)
        }
        launches.setdefault((line["Kernel Name"], line.get("Grid Size", "")), []).append(values)
    return [
        {"kernel": kernel, "grid": grid, "launches": len(values), **_medians(values)}
        for (kernel, grid), values in launches.items()
    ]


def _medians(values: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(torch.tensor([v[name] for v in values], dtype=torch.float64).median()) for name in values[0]}


def with_durations() -> list[dict[str, Any]]:
    """A row for each kernel by torch's profiler: launches and their mean time."""
    rows = []
    activities = [torch.profiler.ProfilerActivity.CUDA if ON_GPU else torch.profiler.ProfilerActivity.CPU]
    for name, call in calls():
        call()
        with torch.profiler.profile(activities=activities) as profile:
            call()
            if ON_GPU:
                torch.cuda.synchronize()
        for event in profile.key_averages():
            microseconds = event.device_time_total if ON_GPU else event.cpu_time_total
            if microseconds > 0:
                rows.append({"call": name, "kernel": event.key, "launches": event.count,
                             "nanoseconds": 1e3 * microseconds / event.count})  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", action="store_true", help="only launch the kernels")
    if parser.parse_args().run:
        run()
        return
    rows, reason = [], "ncu is not installed"
    if ncu := shutil.which("ncu"):
        try:
            rows = with_counters(ncu)
        except RuntimeError as error:
            reason = str(error)
    if not rows:
        print(f"without counters: {reason}")
        rows = [{"left_out": f"counters: {reason}"}, *with_durations()]
    for row in sorted(rows, key=lambda row: -row.get("nanoseconds", 0) * row.get("launches", 1))[:20]:
        print({key: round(x, 1) if isinstance(x, float) else x for key, x in row.items()})
    print(f"{ROWS:,} rows; written to {record('profile', [{'rows': ROWS, **row} for row in rows])}")


if __name__ == "__main__":
    main()
