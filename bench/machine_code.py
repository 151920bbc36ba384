"""Instructions per logit in the compiled streaming loops, and the fraction of the memory bandwidth that they allow.

    python bench/machine_code.py            writes bench/results/machine-code.jsonl and prints its table

The kernels are compiled ahead of time, so it needs no GPU, and nothing in its table was measured on one: ``gpu_model`` has
the model, its throughput table and its sources; ``sass`` reads the machine code. Launches are recorded from the host
code (``tests/kernels/resources.py``), so constants, warps and alignment are those that ship.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # the launches are recorded by a module of the tests

import torch  # noqa: E402
from gpu_model import CHIPS, MIO, Mix, occupancy, replay, roof, trace  # noqa: E402
from sass import Loop, disassemble, resource_usage, streaming_loops  # noqa: E402

from ssdfast.kernels import ProbeSpec  # noqa: E402
from tests.kernels import resources  # noqa: E402
from tests.kernels.resources import Launch  # noqa: E402

V = 151_936
RESULTS = ROOT / "bench" / "results" / "machine-code.jsonl"
CHIPS_OF = {"sm_80": ("A100",), "sm_90": ("H100", "H200"), "sm_100": ("B200",)}


@dataclass(frozen=True)
class Stream:
    """One streaming loop of a compiled kernel. ``per_logit`` is what a thread issues for a logit in an iteration."""

    per_logit: float
    pipes: dict[str, float]
    registers: int
    shared_bytes: int
    spilled: int
    exchanges: int  # shuffles and barriers in the loop
    fraction: dict[str, tuple[float, str, float]]  # of the bandwidth by chip: roof, its limit, replay


def streams(launch: Launch, target: str, logits_per_program: float, item_bytes: int = 2) -> list[Stream]:
    """Every streaming loop of a kernel, in the order of the code. One program loads that many logits in its life."""
    kernel = resources.compiled(launch, resources.TARGETS[target])
    code, usage = disassemble(kernel.asm["cubin"]), resource_usage(kernel.asm["cubin"])
    registers, shared_bytes = usage["REG"], kernel.metadata.shared
    found = []
    for loop in streaming_loops(code):
        mix = Mix.of(i for i in code if i in loop)
        logits = mix.loaded_bytes / item_bytes
        fraction = {}
        for name in CHIPS_OF[target]:
            chip = CHIPS[name]
            iterations = max(1, round(logits_per_program / (launch.num_warps * 32 * logits)))
            blocks = occupancy(chip, registers, shared_bytes, launch.num_warps)
            reached = replay(trace(code, loop, iterations), chip, blocks, launch.num_warps)
            fraction[name] = (*roof(mix, chip), reached)
        pipes = {pipe: count / logits for pipe, count in mix.pipes.items()}
        found.append(
            Stream(
                mix.total / logits, pipes, registers, shared_bytes, usage["STACK"] + usage["LOCAL"],
                sum(i.pipe in ("SHFL", "BAR") for i in code if i in loop), fraction,
            )  # fmt: skip
        )
    return found


__all__ = ["CHIPS_OF", "MIO", "RESULTS", "V", "Iterator", "Loop", "ProbeSpec", "Stream", "json", "replace", "streams", "torch"]
