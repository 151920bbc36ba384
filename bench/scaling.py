"""How time and memory of the fast backends grow with N, V, H and threads: ``python bench/scaling.py``.

One variable changes at a time, the others keep their base value. Every column, two models, bf16. On a CPU each point is
measured in a process of its own, because of the memory. Writes bench/results/scaling.jsonl.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from typing import Any

import torch
from common import ON_GPU, interleaved, record
from memory import SMALL, peak_on_cpu, peak_on_gpu, python
from provider import Provider
from records import OPERATIONS

BASE = (
    {"N": 4_096, "V": 151_936, "H": 2_560, "threads": 1} if ON_GPU else {"N": 64, "V": 49_152, "H": 576, "threads": 2}
)
GRID = (
    {"N": (1_024, 4_096, 16_384), "V": (49_152, 151_936, 248_320), "H": (1_024, 2_560, 5_120)}
    if ON_GPU
    else {"N": (16, 64, 256, 1_024), "V": (16_384, 49_152, 151_936), "H": (256, 576, 2_048), "threads": (1, 2)}
)
GATE_ROWS = 2  # at every point; the benchmarks of the operations check more


def points(operation: str) -> Iterator[tuple[str, dict[str, int]]]:
    """The variable that changes, and the values of all."""
    for variable, values in GRID.items():
        if variable == "threads" or variable in OPERATIONS[operation]:
            yield from ((variable, {**BASE, variable: value}) for value in values)


def measure(operation: str, point: dict[str, int]) -> dict[str, float]:
    """Time per row pair and peak memory of the provider that gives every column, in this process."""
    benchmark = importlib.import_module(operation)
    torch.set_num_threads(point["threads"])
    shape = tuple(point[name] for name in OPERATIONS[operation])

    def prepared(x: Any) -> Provider:
        return next(p for p in benchmark.ours(x) if p.gives == "all")

    small, x = benchmark.inputs(*SMALL[: len(shape)]), benchmark.inputs(*shape)
    prepared(small).run(small)
    provider = prepared(x)
    peak = (peak_on_gpu if ON_GPU else peak_on_cpu)(lambda: provider.run(x))
    few = x.rows(GATE_ROWS)
    if reason := prepared(few).why_not(few):
        raise RuntimeError(f"{operation} at {point}: {reason}")
    seconds = interleaved({"run": lambda: provider.run(x)}, 0.3)["run"]
    return {"ms_per_row_pair": 1e3 * seconds / point["N"], "peak_extra_bytes": peak}


def main() -> None:
    torch.set_num_threads(BASE["threads"])
    rows, known = [], {}
    for operation in OPERATIONS:
        for variable, point in points(operation):
            key = operation, *(point[name] for name in (*OPERATIONS[operation], "threads"))
            if key not in known:
                sizes = json.dumps(point)
                known[key] = (
                    measure(operation, point)
                    if ON_GPU
                    else json.loads(python("bench/scaling.py", operation, sizes).splitlines()[-1])
                )
            row = {"operation": operation, "variable": variable, **point, **known[key]}
            if "H" not in OPERATIONS[operation]:
                del row["H"]
            print(f"{operation:20} {variable:8}{point[variable]:9,} {row['ms_per_row_pair']:10.4f} ms per row pair "
                  f"{row['peak_extra_bytes'] / 2**20:9.1f} MiB extra", flush=True)  # fmt: skip
            rows.append(row)
    print(f"\nwritten to {record('scaling', rows)}")


if __name__ == "__main__":
    if len(sys.argv) > 1:  # one point, for the process above
        print(json.dumps(measure(sys.argv[1], json.loads(sys.argv[2]))))
    else:
        main()
