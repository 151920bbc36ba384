"""Instructions per logit in the compiled streaming loops, and the fraction of the memory bandwidth that they allow.

    python bench/machine_code.py            writes bench/results/machine-code.json, of which report.py makes a table

The kernels are compiled ahead of time, so it needs no GPU, and nothing in its table was measured on one:
``gpu_model`` has
the model, its throughput table and its sources; ``sass`` reads the machine code. Launches are recorded from the host
code (``tests/kernels/resources.py``), so constants, warps and alignment are those that ship.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # the launches are recorded by a module of the tests

import torch  # noqa: E402
from gpu_model import CHIPS, Mix, occupancy, replay, roof, trace  # noqa: E402
from sass import disassemble, resource_usage, streaming_loops  # noqa: E402

from ssdfast.kernels import ProbeSpec  # noqa: E402
from tests.kernels import resources  # noqa: E402
from tests.kernels.resources import Launch  # noqa: E402

V = 151_936
RESULTS = ROOT / "bench" / "results" / "machine-code.json"
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


def streams(
    launch: Launch, target: str, logits_per_program: float, item_bytes: int = 2, replayed: bool = True
) -> list[Stream]:
    """Every streaming loop of a kernel, in the order of the code. One program loads that many logits in its life.

    Without ``replayed`` there are no fractions of the bandwidth: a replay takes seconds.
    """
    kernel = resources.compiled(launch, resources.TARGETS[target])
    code, usage = disassemble(kernel.asm["cubin"]), resource_usage(kernel.asm["cubin"])
    registers, shared_bytes = usage["REG"], kernel.metadata.shared
    measured = []
    for loop in streaming_loops(code):
        mix = Mix.of(i for i in code if i in loop)
        logits = mix.loaded_bytes / item_bytes
        fraction = {}
        for name in CHIPS_OF[target] if replayed else ():
            chip = CHIPS[name]
            iterations = max(1, round(logits_per_program / (launch.num_warps * 32 * logits)))
            blocks = occupancy(chip, registers, shared_bytes, launch.num_warps)
            reached = replay(trace(code, loop, iterations), chip, blocks, launch.num_warps)
            fraction[name] = (*roof(mix, chip), reached)
        spilled = usage["STACK"] + usage["LOCAL"]
        exchanges = sum(i.pipe in ("SHFL", "BAR") for i in code if i in loop)
        pipes = {pipe: count / logits for pipe, count in mix.pipes.items()}
        measured.append(Stream(mix.total / logits, pipes, registers, shared_bytes, spilled, exchanges, fraction))
    return measured


FIRST_SWEEPS = {
    "first sweep, one model, no temperatures": (ProbeSpec(lse_temperatures=()), False),
    "first sweep, one model, five default temperatures": (ProbeSpec(), False),
    "first sweep, two models and pair sums, no temperatures": (ProbeSpec(sweeps=1, lse_temperatures=()), True),
    "first sweep, two models and pair sums, five default temperatures": (ProbeSpec(sweeps=1), True),
}
SECOND_SWEEPS = ("second sweep, models alike (exact)", "second sweep, models apart (direct)")


def all_streams(target: str, replayed: bool = True) -> Iterator[tuple[str, Stream]]:
    """The streaming loops of ``probe_stats`` in bf16, with a name for each."""
    for name, (spec, pair) in FIRST_SWEEPS.items():
        launches = resources.launches(target, 2, V, torch.bfloat16, spec, pair)
        sweep = next(launch for launch in launches if launch.fn.__name__ == "first_sweep")
        models = 2 if pair else 1
        yield name, streams(sweep, target, models * V / 3, replayed=replayed)[0]
    launches = resources.launches(target, 2, V, torch.bfloat16, ProbeSpec(), True)
    sweep = next(launch for launch in launches if launch.fn.__name__ == "second_sweep")
    yield from zip(SECOND_SWEEPS, streams(sweep, target, 2 * V / 3, replayed=replayed), strict=True)


def main() -> None:
    rows = []
    for target in ("sm_90", "sm_100"):
        for name, stream in all_streams(target):
            rows.append({"kernel": name, "target": target, **asdict(stream)})
            print(f"{target:7} {name:66} {stream.per_logit:5.1f} per logit", stream.fraction, flush=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
