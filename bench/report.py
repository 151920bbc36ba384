"""Tables and plots of what the benchmarks recorded: ``python bench/report.py [--short]``.

Reads bench/results/*.jsonl and writes docs/bench/tables.md and docs/bench/*.svg; with --short it prints what was
measured on a GPU instead, which needs no matplotlib. A provider that was left out is named with the reason, and has no
figures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
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
    """The records of one operation at one shape on one device, under a title that says which, fastest first."""
    found: dict[str, list[Record]] = {}
    for r in records:
        if r.get("operation") in OPERATIONS and "provider" in r:
            found.setdefault(title(r), []).append(r)
    for name, rows in found.items():
        yield name, sorted(rows, key=lambda r: r.get("ms_per_row_pair", float("inf")))


def title(r: Record) -> str:
    sizes = ", ".join(f"{k} {value:,}" for k, value in zip(OPERATIONS[r["operation"]], r["shape"], strict=True))
    return f"{r['operation']}: {sizes}, bf16, two models; {r['device']}"


def markdown(records: list[Record]) -> str:
    parts = []
    for name, rows in groups(records):
        lines = [f"### {name}", "", "| | gives | time a row pair | peak extra memory | of the roofline |"]
        lines.append("|---|---|---:|---:|---:|")
        for r in shown(rows):
            lines.append(f"| {r['provider']} | {r['gives']} | {milliseconds(r)} | {mebibytes(r)} | {percent(r)} |")
        if any(r["rows_timed"] < r["shape"][0] for r in shown(rows)):
            slow = {r["rows_timed"]: r["provider"] for r in shown(rows) if r["rows_timed"] < r["shape"][0]}
            lines += ["", "Timed on fewer rows: " + "; ".join(f"{p} on {n}" for n, p in slow.items()) + "."]
        for r in rows:
            if "left_out" in r:
                lines += ["", f"Left out: {r['provider']} ({r['gives']}): {r['left_out']}."]
        parts.append("\n".join([*lines, "", where(rows[0])]))
    for operation, names in OPERATIONS.items():
        for device, rows in scaling(records, operation):
            lines = [f"### {operation}, one variable at a time; {device}", ""]
            lines += [f"| | {' | '.join(names)} | threads | time a row pair | peak extra memory |"]
            lines.append("|---|" + "---:|" * (len(names) + 3))
            for r in rows:
                sizes = " | ".join(f"{r[k]:,}" for k in (*names, "threads"))
                lines.append(f"| {r['variable']} | {sizes} | {milliseconds(r)} | {mebibytes(r)} |")
            parts.append("\n".join([*lines, "", where(rows[0])]))
    return "\n\n".join(parts) + "\n"


def shown(rows: list[Record]) -> list[Record]:
    return [r for r in rows if "left_out" not in r]


def scaling(records: list[Record], operation: str) -> Iterator[tuple[str, list[Record]]]:
    found: dict[str, list[Record]] = {}
    for r in records:
        if "variable" in r and r["operation"] == operation:
            found.setdefault(r["device"], []).append(r)
    yield from found.items()


def milliseconds(r: Record) -> str:
    return f"{r['ms_per_row_pair']:.3g} ms"


def mebibytes(r: Record) -> str:
    return f"{r['peak_extra_bytes'] / 2**20:,.1f} MiB"


def percent(r: Record) -> str:
    value = 100 * r["fraction_of_roofline"]
    return f"{value:.0f}%" if value >= 1 else f"{value:.1g}%"


def on_gpu(r: Record) -> bool:
    return r["file"].endswith("-gpu")


def where(r: Record) -> str:
    threads = "" if on_gpu(r) else f"{r['threads']} threads, {r['isa']}, "
    return f"{r['device']}, {threads}torch {r['torch']}, commit {r['commit']}, {r['date']}."


def short(records: list[Record]) -> str:
    """What was measured on a GPU: a line a provider, a line a claim."""
    lines, mine = [], [r for r in records if on_gpu(r)]
    for name, rows in groups(mine):
        lines.append(name)
        for r in rows:
            figures = (
                f"{milliseconds(r):>11} {mebibytes(r):>14} {percent(r):>5} of the roofline"
                if "left_out" not in r
                else r["left_out"]
            )
            lines.append(f"  {r['provider']:34} {figures}")
    for r in (r for r in mine if "claim" in r):
        verdict = {True: "ok", False: "FAIL", None: "not measured"}[r["holds"]]
        value = "" if r["value"] is None else f"{r['value']:.3g}"
        lines.append(f"{verdict:5}{r['claim']:80} {value:>8} (bar {r['bar']:g} {r['unit']})")
    return "\n".join(lines) or "nothing was measured on a GPU"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="print what was measured on a GPU, and write nothing")
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "bench")
    args = parser.parse_args()
    records = read(args.results)
    if args.short:
        print(short(records))
        return
    import plots

    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "tables.md").write_text(markdown(records), encoding="utf-8")
    for path in plots.draw(records, args.out):
        print(path)


if __name__ == "__main__":
    main()
