"""What a model of the machine code predicts, for docs/benchmarks.md. Nothing in it was measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SECTION = """## Predicted speed of the GPU kernels

**Predicted, not measured.** `bench/machine_code.py` compiles the kernels of `probe_stats` in bf16, counts the
instructions of each streaming loop, and predicts the fraction of the memory bandwidth: first by issue slots and pipes,
then by a replay that also sees occupancy and latency. `bench/gpu_model.py` has the model and its sources.

| loop | chip | instructions per logit | registers | limit of issue and pipes | replay |
|---|---|---:|---:|---:|---:|
"""
CALL = """Default `probe_stats` of two models at V = 151,936, per pair of positions, by the replay of each launch
(`bench/pair_time.py`). A nucleus beyond the top list adds its row to the call:

| kernel | instructions per logit | H100 | H200 |
|---|---:|---:|---:|
"""


def section(file: Path) -> str:
    """The tables of bench/machine_code.py, or nothing where it has not run."""
    if not file.exists():
        return ""
    content = json.loads(file.read_text(encoding="utf-8"))
    tiles = content["tiles"].items()
    return "\n\n".join(
        (
            SECTION + "\n".join(_streams(content["streams"])),
            CALL + "\n".join(_call(content)),
            "Tiles of hidden states, instructions per logit beside its product on sm_90: "
            + ", ".join(f"{count:.1f} with {name}" for name, count in tiles)
            + ".",
        )
    )


def _streams(streams: list[dict[str, Any]]) -> Iterator[str]:
    for r in streams:
        for chip, (roof, limit, replay) in r["fraction"].items():
            figures = f"{r['per_logit']:.1f} | {r['registers']} | {roof:.0%} ({limit}) | {replay:.0%}"
            yield f"| {r['kernel']} | {chip} | {figures} |"


def _call(content: dict[str, Any]) -> Iterator[str]:
    for cost in content["calls"]:
        times = " | ".join(f"{ns:.1f} ns" for ns in cost["nanoseconds"].values())
        yield f"| {cost['kernel']} | {cost['per_logit']:.2f} | {times} |"
    for name, times in content["totals"].items():
        yield f"| **the call**, with the {name} | | " + " | ".join(f"**{ns:.0f} ns**" for ns in times.values()) + " |"
