"""How long default ``probe_stats`` takes per pair of positions, by the model of ``gpu_model``: nothing is measured.

    python bench/pair_time.py

Every launch of a call is replayed with the work that it has for one pair of rows of 151,936 in bf16, and the times are
added, as on a stream. Rows are taken to be ordinary: no part has -inf or NaN, and each token of a top list is the only
one of its group near the list. Loads of a top list are 16 bytes each, of which memory delivers 64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from gpu_model import CHIPS, Chip, Mix
from machine_code import SECOND_SWEEPS, Kernel, V, top_list
from sass import Instruction

from ssdfast.kernels import ProbeSpec
from tests.kernels import resources

LONG_NUCLEUS = "each long nucleus"
READS = 3  # of a search for a long nucleus
UNEVEN = 4  # bytes that memory delivers for each byte of a top list
PARTS = 3  # of a row
IDLE = {"first_sweep_exact": 2 * PARTS, "second_sweep_exact": PARTS, "nucleus_sizes": 2}  # blocks that end at once


@dataclass(frozen=True)
class Cost:
    """One kernel of a call, per pair of rows."""

    kernel: str
    blocks: float
    per_logit: float  # instructions of a thread, spread over the logits of the pair
    nanoseconds: dict[str, float]  # by chip


def costs(target: str, chips: tuple[str, ...], spec: ProbeSpec | None = None) -> Iterator[Cost]:
    """The kernels of a call on two models in bf16, in order, and last what each long nucleus adds."""
    spec = ProbeSpec() if spec is None else spec
    for launch in resources.launches(target, 2, V, torch.bfloat16, spec, True):
        kernel = Kernel(launch, target)
        for name, blocks, code in _work(kernel):
            yield _cost(name, blocks, kernel, code, chips)


def _work(kernel: Kernel) -> Iterator[tuple[str, float, list[Instruction]]]:
    """Name, blocks per pair and what each issues; two names where a kernel has two forms."""
    name = kernel.launch.fn.__name__
    logits = 2 if name == "second_sweep" else 1
    per_iteration = [
        Mix.of(kernel.inside(loop)).loaded_bytes / 2 / logits * 32 * kernel.launch.num_warps for loop in kernel.streams
    ]
    if name == "first_sweep":
        yield name, 2 * PARTS, kernel.issued({kernel.streams[0]: round(V / PARTS / per_iteration[0])})
    elif name == "second_sweep":
        for form, loop, count in zip(SECOND_SWEEPS, kernel.streams, per_iteration, strict=True):
            yield form, PARTS, kernel.issued({loop: round(V / PARTS / count)})
    elif name == "top_tokens":
        yield name, 2, top_list(kernel)
    elif name in IDLE:
        yield f"{name}, nothing to do", IDLE[name], kernel.until_first_exit()
    else:
        yield name, 2 if name == "merge_model" else 1, kernel.issued({})
    if name == "nucleus_sizes":
        outer = kernel.loops[0]
        yield LONG_NUCLEUS, 1, kernel.issued({outer: READS, kernel.streams[0]: round(V / per_iteration[0])})


def _cost(name: str, blocks: float, kernel: Kernel, code: list[Instruction], chips: tuple[str, ...]) -> Cost:
    per_logit = len(code) * 32 * kernel.launch.num_warps * blocks / (2 * V)
    times = {chip: blocks * kernel.nanoseconds(code, _memory(CHIPS[chip], name)) for chip in chips}
    return Cost(name, blocks, per_logit, times)


def _memory(chip: Chip, kernel: str) -> Chip:
    return replace(chip, bandwidth=chip.bandwidth / UNEVEN) if kernel == "top_tokens" else chip


def totals(costs: list[Cost], chips: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Nanoseconds per pair by form of the second sweep and chip, without long nuclei."""
    forms = {c.kernel: c for c in costs if c.kernel in SECOND_SWEEPS}
    rest = [c for c in costs if c.kernel not in (*SECOND_SWEEPS, LONG_NUCLEUS)]
    return {
        name: {chip: form.nanoseconds[chip] + sum(c.nanoseconds[chip] for c in rest) for chip in chips}
        for name, form in forms.items()
    }


def main() -> None:
    chips = ("H100", "H200")
    calls = []
    for cost in costs("sm_90", chips):
        calls.append(cost)
        times = "  ".join(f"{chip} {ns:6.1f} ns" for chip, ns in cost.nanoseconds.items())
        print(f"{cost.kernel:40} {cost.blocks:3g} blocks {cost.per_logit:6.2f} per logit  {times}", flush=True)
    for name, times_of in totals(calls, chips).items():
        print(f"in all, {name}:", ", ".join(f"{chip} {ns:.0f} ns" for chip, ns in times_of.items()))


if __name__ == "__main__":
    main()
