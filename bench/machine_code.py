"""Instructions per logit in the compiled kernels, and how fast a model says that they are.

    python bench/machine_code.py            writes bench/results/machine-code.json, of which report.py makes tables

The kernels are compiled ahead of time, so it needs no GPU, and nothing in its tables was measured on one:
``gpu_model`` has the model, its throughput table and its sources; ``sass`` reads the machine code; ``pair_time`` adds
up a whole call. Launches are recorded from the host code (``tests/kernels/resources.py``), so constants, warps and
alignment are those that ship.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # the launches are recorded by a module of the tests

import torch  # noqa: E402
from gpu_model import CHIPS, Chip, Mix, fraction_of_bandwidth, occupancy, replay, roof  # noqa: E402
from sass import Instruction, Loop, disassemble, issued, loops, resource_usage, streaming_loops  # noqa: E402

from ssdfast.kernels import ProbeSpec  # noqa: E402
from tests.kernels import resources  # noqa: E402
from tests.kernels.resources import Launch  # noqa: E402

V = 151_936
RESULTS = ROOT / "bench" / "results" / "machine-code.json"
MOST_ITERATIONS = 32  # replayed: more change nothing
CHIPS_OF = {"sm_80": ("A100",), "sm_90": ("H100", "H200"), "sm_100": ("B200",)}


class Kernel:
    """A launch, compiled for a target."""

    def __init__(self, launch: Launch, target: str) -> None:
        compiled = resources.compiled(launch, resources.TARGETS[target])
        cubin = compiled.asm["cubin"]
        usage = resource_usage(cubin)
        self.launch = launch
        self.code = disassemble(cubin)
        self.registers, self.spilled = usage["REG"], usage["STACK"] + usage["LOCAL"]
        self.shared_bytes: int = compiled.metadata.shared

    @cached_property
    def loops(self) -> list[Loop]:
        """In the order of the code."""
        return sorted(loops(self.code), key=lambda loop: loop.first)

    @cached_property
    def streams(self) -> list[Loop]:
        return streaming_loops(self.code)

    def inside(self, loop: Loop) -> list[Instruction]:
        return [i for i in self.code if i in loop]

    def issued(self, trips: dict[Loop, int]) -> list[Instruction]:
        """By a warp in its life; loops that ``trips`` lacks run once where they contain one of it, and else not."""
        around = {x: any(x.first <= y.first and y.last <= x.last for y in trips) for x in self.loops}
        return issued(self.code, {loop: int(runs) for loop, runs in around.items()} | trips)

    def until_first_exit(self) -> list[Instruction]:
        """Issued by a warp that finds nothing to do."""
        exits = [i.address for i in self.code if i.name == "EXIT"]
        return [i for i in self.code if i.address <= exits[0]]

    def blocks(self, chip: Chip) -> int:
        """That an SM holds."""
        return occupancy(chip, self.registers, self.shared_bytes, self.launch.num_warps)

    def nanoseconds(self, code: list[Instruction], chip: Chip) -> float:
        """Of the whole chip per block whose warps issue this."""
        return 1e9 * replay(code, chip, self.blocks(chip), self.launch.num_warps) / chip.clock / chip.sms


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


def stream(kernel: Kernel, loop: Loop, logits_per_block: float, chips: tuple[str, ...], item_bytes: int = 2) -> Stream:
    """A streaming loop of a kernel whose block loads that many logits in its life. A replay takes seconds per chip."""
    code, warps = kernel.inside(loop), kernel.launch.num_warps
    mix = Mix.of(code)
    logits = mix.loaded_bytes / item_bytes
    iterations = min(MOST_ITERATIONS, max(1, round(logits_per_block / (warps * 32 * logits))))
    life, fraction = kernel.issued({loop: iterations}), {}
    for name in chips:
        reached = fraction_of_bandwidth(life, CHIPS[name], kernel.blocks(CHIPS[name]), warps)
        fraction[name] = (*roof(mix, CHIPS[name]), reached)
    exchanges = sum(i.pipe in ("SHFL", "BAR") for i in code)
    pipes = {pipe: count / logits for pipe, count in mix.pipes.items()}
    per_logit = mix.total / logits
    return Stream(per_logit, pipes, kernel.registers, kernel.shared_bytes, kernel.spilled, exchanges, fraction)


FIRST_SWEEPS = {
    "first sweep, one model, no temperatures": (ProbeSpec(lse_temperatures=()), False),
    "first sweep, one model, five default temperatures": (ProbeSpec(), False),
    "first sweep, two models and pair sums, no temperatures": (ProbeSpec(sweeps=1, lse_temperatures=()), True),
    "first sweep, two models and pair sums, five default temperatures": (ProbeSpec(sweeps=1), True),
}
SECOND_SWEEPS = ("second sweep, models alike (exact)", "second sweep, models apart (direct)")


def kernel_of(name: str, target: str, spec: ProbeSpec, pair: bool, dtype: torch.dtype = torch.bfloat16) -> Kernel:
    """The kernel of that name in ``probe_stats`` of rows of V."""
    launches = resources.launches(target, 2, V, dtype, spec, pair)
    return Kernel(next(launch for launch in launches if launch.fn.__name__ == name), target)


def all_streams(target: str, chips: tuple[str, ...] = ()) -> Iterator[tuple[str, Stream]]:
    """The streaming loops of ``probe_stats`` in bf16, with a name for each; replayed on these chips."""
    for name, (spec, pair) in FIRST_SWEEPS.items():
        sweep = kernel_of("first_sweep", target, spec, pair)
        yield name, stream(sweep, sweep.streams[0], (2 if pair else 1) * V / 3, chips)
    sweep = kernel_of("second_sweep", target, ProbeSpec(), True)
    for name, loop in zip(SECOND_SWEEPS, sweep.streams, strict=True):
        yield name, stream(sweep, loop, 2 * V / 3, chips)
    classes = kernel_of("class_masses", target, resources.CLASSES, True)
    yield "masses of 12 classes", stream(classes, classes.streams[0], 16 * (1 << 14), chips)
    search = kernel_of("nucleus_sizes", target, ProbeSpec(), False)
    yield "one of the reads for a long nucleus", stream(search, search.streams[0], 3 * V, chips)


def top_list(kernel: Kernel) -> list[Instruction]:
    """What a warp issues for a row's top list where each of K groups has one token in it."""
    return kernel.issued({kernel.loops[0]: int(str(dict(kernel.launch.constants)["K"]))})


ROWS_OF_A_TILE = 128
RARE = 60  # instructions: a longer branch is that of the last tile, which reaches beyond the vocabulary


def tile_epilogue(kernel: Kernel) -> list[Instruction]:
    """The instructions of the loop over tiles, without the loop of the product and without rare branches."""
    outer, *inner = loops(kernel.code)
    own = [i for i in kernel.inside(outer) if not any(i in loop for loop in inner)]
    rare: set[int] = set()
    for branch in own:
        if branch.predicated and branch.target is not None and branch.address < branch.target <= outer.last:
            skipped = {i.address for i in own if branch.address < i.address < branch.target}
            if RARE < len(skipped) < len(own) / 2:
                rare |= skipped
    return [i for i in own if i.address not in rare]


def tiles(spec: ProbeSpec, target: str = "sm_90") -> tuple[Kernel, float]:
    """The kernel of tiles of hidden states, and the entries that a thread has of a tile."""
    launches = resources.linear_launches(target, 2560, 4096, torch.bfloat16, spec)
    launch = next(x for x in launches if x.fn.__name__ == "tile_states")
    entries = ROWS_OF_A_TILE * int(str(dict(launch.constants)["IDS"])) / (32 * launch.num_warps)
    return Kernel(launch, target), entries


def main() -> None:
    import pair_time

    rows = []
    for target in ("sm_90", "sm_100"):
        for name, loop in all_streams(target, CHIPS_OF[target]):
            rows.append({"kernel": name, "target": target, **asdict(loop)})
            print(f"{target:7} {name:66} {loop.per_logit:5.1f} per logit", loop.fraction, flush=True)
    per_entry = {}
    for name, spec in (("no temperatures", resources.ONE_SWEEP), ("five default temperatures", resources.TEMPERED)):
        kernel, entries = tiles(spec)
        per_entry[name] = len(tile_epilogue(kernel)) / entries
        print(f"tiles of hidden states, {name}: {per_entry[name]:.1f} per entry", flush=True)
    calls = list(pair_time.costs("sm_90", CHIPS_OF["sm_90"]))
    totals = pair_time.totals(calls, CHIPS_OF["sm_90"])
    content = {"streams": rows, "tiles": per_entry, "calls": [asdict(cost) for cost in calls], "totals": totals}
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
