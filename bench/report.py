"""Writes docs/benchmarks.md and docs/bench/*.svg: ``python bench/report.py [--short]``.

The tables and plots are made of bench/results/*.jsonl; bench/results/notes.md is included as it is. With --short it
prints what was measured on a GPU instead, which needs no matplotlib.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import predicted
import published
import records
from records import OPERATIONS, Record

ROOT = Path(__file__).resolve().parent.parent
INTRODUCTION = """# Benchmarks

This page is written by `bench/report.py` from the records in `bench/results/`. Each table of timings names its own
record, and the last section lists them all. The records are of:

{machines}

Ratios are medians of runs that take turns on a machine that does nothing else; on a busy machine they have been up to a
tenth higher.

`python bench/claims.py all` measures the claims again and fails where one no longer holds. A provider whose answer
differs from float64 is left out, with the reason. `bench/gpu_check.sh` runs the GPU tests and these benchmarks
at full size on a machine with a GPU, in under nine minutes; no GPU has been measured yet unless a table below names
one.
"""
OPERATION_SECTIONS = (
    ("Kernels from hidden states", "linear_probe_stats", "claims-linear"),
    ("Kernels from logits", "probe_stats", "claims-probe-stats"),
)
CLAIM_SECTIONS = (
    ("The loss", "claims-loss"),
    ("The whole probe", "claims-runner"),
    ("Sampling", "claims-sampling"),
    ("Evaluation", "claims-evaluation"),
    ("Training and memory plans", "claims-training"),
    ("Study, attribution and report", "claims-study"),
    ("The demo study", "claims-demo"),
)


def page(rows: list[Record], notes: str) -> str:
    """The text of docs/benchmarks.md."""
    parts = [INTRODUCTION.format(machines=_summary(rows)).rstrip()]
    for heading, operation, claims in OPERATION_SECTIONS:
        of_operation = [r for r in rows if r.get("operation") == operation]
        section = [*_provider_tables(of_operation), *_scaling_tables(of_operation, operation), *_claims(rows, claims)]
        if section:
            parts += [f"## {heading}", *section]
    for heading, claims in CLAIM_SECTIONS:
        section = list(_claims(rows, claims))
        if section:
            parts += [f"## {heading}", *section]
    parts += published.section()
    if notes:
        parts.append(notes.strip())
    return "\n\n".join([*parts, _machines(rows)]) + "\n"


def _provider_tables(rows: list[Record]) -> Iterator[str]:
    for name, group in records.groups(rows):
        timed = records.measured(group)
        lines = [f"### {name}", "", "| | gives | time per row pair | peak extra memory | of the roofline |"]
        lines.append("|---|---|---:|---:|---:|")
        for r in timed:
            figures = f"{records.format_time(r)} | {records.format_memory(r)} | {records.format_roofline(r)}"
            lines.append(f"| {r['provider']} | {r['gives']} | {figures} |")
        if slow := {r["rows_timed"]: r["provider"] for r in timed if r["rows_timed"] < r["shape"][0]}:
            lines += ["", "Timed on fewer rows: " + "; ".join(f"{p} on {n}" for n, p in slow.items()) + "."]
        for r in group:
            if "left_out" in r:
                lines += ["", f"Left out: {r['provider']} ({r['gives']}): {r['left_out']}."]
        lines += ["", f"{records.format_machine(group[0])}."]
        if timed:
            lines += ["", f"![{name}](bench/{records.plot_name(group[0])})"]
        yield "\n".join(lines)


def _scaling_tables(rows: list[Record], operation: str) -> Iterator[str]:
    names = OPERATIONS[operation]
    for machine, group in records.scaling(rows, operation):
        lines = [f"### {operation}, one variable at a time; {machine}", ""]
        lines += [f"| | {' | '.join(names)} | threads | time per row pair | peak extra memory |"]
        lines.append("|---|" + "---:|" * (len(names) + 3))
        for r in group:
            sizes = " | ".join(f"{r[k]:,}" for k in (*names, "threads"))
            lines.append(f"| {r['variable']} | {sizes} | {records.format_time(r)} | {records.format_memory(r)} |")
        plot = records.scaling_plot_name(group[0])
        yield "\n".join(
            [*lines, "", f"{records.format_machine(group[0])}.", "", f"![{operation}, scaling](bench/{plot})"]
        )


def _claims(rows: list[Record], file: str) -> Iterator[str]:
    """A table of the claims of one topic: a column per machine, CPUs and GPUs."""
    claims = [r for name in (file, f"{file}-gpu") for r in rows if r["file"] == name and "bar" in r]
    if not claims:
        return
    measured = [r for r in claims if r["value"] is not None]
    machines = list(dict.fromkeys(map(records.machine_name, measured or claims)))
    cells = {(r["claim"], records.machine_name(r)): _measured(r) for r in measured}
    lines = [f"| claim | bar | {' | '.join(machines)} |", "|---|---:|" + "---:|" * len(machines)]
    for claim, bar in dict.fromkeys((r["claim"], f"{r['bar']:g} {r['unit']}".rstrip()) for r in claims):
        row = [cells.get((claim, machine), "") for machine in machines]
        lines.append(f"| {claim} | {bar} | {' | '.join(row if any(row) else ['not measured', *row[1:]])} |")
    yield "\n".join(lines)


def _measured(claim: Record) -> str:
    value = f"{claim['value']:.3g} {claim['unit']}".rstrip()
    return value if claim["holds"] else f"{value}, **missed**"


def _summary(rows: list[Record]) -> str:
    """One line per machine: versions, commits and dates of its records."""
    lines = []
    for machine in dict.fromkeys(records.machine_name(r) for r in rows if "device" in r):
        of_machine = [r for r in rows if "device" in r and records.machine_name(r) == machine]
        torches, pythons, commits, dates = (
            sorted({str(r.get(key, "unknown")) for r in of_machine}) for key in ("torch", "python", "commit", "date")
        )
        days = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
        versions = f"torch {', '.join(torches)}, Python {', '.join(pythons)}"
        lines.append(f"- {machine}: {versions}, {days}, commits {', '.join(commits)}")
    return "\n".join(lines)


def _machines(rows: list[Record]) -> str:
    """Where and when each file of records was measured."""
    lines = ["## Records", "", "| file | device | threads | vector instructions | torch | python | commit | date |"]
    lines.append("|---|---|---:|---|---|---|---|---|")
    keys = ("device", "threads", "isa", "torch", "python", "commit", "date")
    machines = dict.fromkeys((r["file"], *(str(r.get(key, "")) for key in keys)) for r in rows)
    return "\n".join([*lines, *(f"| {' | '.join(machine)} |" for machine in machines)])


def short(rows: list[Record]) -> str:
    """What was measured on a GPU: one line per provider and per claim."""
    lines, gpu = [], [r for r in rows if records.on_gpu(r)]
    for name, group in records.groups(gpu):
        lines.append(name)
        for r in group:
            figures = (
                f"{records.format_time(r):>11} {records.format_memory(r):>14} "
                f"{records.format_roofline(r):>5} of the roofline"
                if "left_out" not in r
                else r["left_out"]
            )
            lines.append(f"  {r['provider']:34} {figures}")
    for r in (r for r in gpu if "claim" in r):
        mark = {True: "ok", False: "FAIL", None: "not measured"}[r["holds"]]
        value = "" if r["value"] is None else f"{r['value']:.3g}"
        lines.append(f"{mark:5}{r['claim']:80} {value:>8} (bar {r['bar']:g} {r['unit']})")
    return "\n".join(lines) or "nothing was measured on a GPU"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help="print what was measured on a GPU, and write nothing")
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="the directory of benchmarks.md and bench/")
    args = parser.parse_args()
    rows = records.read(args.results)
    if args.short:
        print(short(rows))
        return
    import plots  # needs matplotlib

    notes = args.results / "notes.md"
    (args.out / "bench").mkdir(parents=True, exist_ok=True)
    own_notes = notes.read_text(encoding="utf-8") if notes.exists() else ""
    text = page(rows, "\n\n".join(filter(None, [predicted.section(args.results / "machine-code.json"), own_notes])))
    (args.out / "benchmarks.md").write_text(text, encoding="utf-8")
    for path in plots.draw(rows, args.out / "bench"):
        print(path)


if __name__ == "__main__":
    main()
