"""The records of bench/results/*.jsonl: how they are read, grouped and formatted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OPERATIONS = {"probe_stats": ("N", "V"), "linear_probe_stats": ("N", "V", "H")}
Record = dict[str, Any]


def read(results: Path) -> list[Record]:
    """Every record of every benchmark and of the claims, with the name of its file."""
    return [
        {**json.loads(line), "file": path.stem}
        for path in sorted(results.glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


def groups(records: list[Record]) -> Iterator[tuple[str, list[Record]]]:
    """The records of one operation at one shape on one machine, fastest first, with a title that names all three."""
    by_title: dict[str, list[Record]] = {}
    for r in records:
        if r.get("operation") in OPERATIONS and "provider" in r:
            by_title.setdefault(title(r), []).append(r)
    for name, rows in by_title.items():
        yield name, sorted(rows, key=lambda r: r.get("ms_per_row_pair", float("inf")))


def title(r: Record) -> str:
    sizes = ", ".join(f"{k} {value:,}" for k, value in zip(OPERATIONS[r["operation"]], r["shape"], strict=True))
    return f"{r['operation']}: {sizes}, bf16, two models; {machine_name(r)}"


def machine_name(r: Record) -> str:
    """The device; of a CPU also its vector instructions, since makers give one name to several generations."""
    return r["device"] if on_gpu(r) or "isa" not in r else f"{r['device']}, {r['isa']}"


def measured(rows: list[Record]) -> list[Record]:
    """Those that were not left out."""
    return [r for r in rows if "left_out" not in r]


def scaling(records: list[Record], operation: str) -> Iterator[tuple[str, list[Record]]]:
    """Each machine, and the operation's records in which one variable changes."""
    by_machine: dict[str, list[Record]] = {}
    for r in records:
        if "variable" in r and r["operation"] == operation:
            by_machine.setdefault(machine_name(r), []).append(r)
    yield from by_machine.items()


def on_gpu(r: Record) -> bool:
    return r["file"].endswith("-gpu")


def plot_name(r: Record) -> str:
    """The file name of the plot of a group of providers."""
    return f"{r['operation']}-{'x'.join(map(str, r['shape']))}-{_machine_kind(r)}.svg"


def scaling_plot_name(r: Record) -> str:
    return f"{r['operation']}-scaling-{_machine_kind(r)}.svg"


def _machine_kind(r: Record) -> str:
    return "gpu" if on_gpu(r) else r["isa"].lower()


def format_time(r: Record) -> str:
    return f"{r['ms_per_row_pair']:.3g} ms"


def format_memory(r: Record) -> str:
    return f"{r['peak_extra_bytes'] / 2**20:,.1f} MiB"


def format_roofline(r: Record) -> str:
    value = 100 * r["fraction_of_roofline"]
    return f"{value:.0f}%" if value >= 1 else f"{value:.1g}%"


def format_machine(r: Record) -> str:
    """Device, versions, commit and date of a record."""
    threads = "" if on_gpu(r) else f"{r['threads']} threads, {r['isa']}, "
    return f"{r['device']}, {threads}torch {r['torch']}, commit {r['commit']}, {r['date']}"
