"""How fast machine code can run, by a model: nothing here was measured on a GPU.

``roof`` is the largest of the times that issue slots, each pipe and the memory need: an upper bound of speed.
``replay`` runs the resident warps of one sub-partition of an SM through the code in order, with the stall counts and
scoreboards that the assembler wrote, the dispatch interval of every pipe, assumed latencies, and the SM's fraction of
the memory's bandwidth as a queue. It sees occupancy and latency. Latencies are assumed and not calibrated.

Results per clock and SM, from the CUDA C++ Programming Guide, "Arithmetic Instructions", table "Throughput of Native
Arithmetic Instructions", columns 8.0, 9.0 and 10.0:

| pipe | results | takes |
|---|---:|---|
| issue | 128 | 4 schedulers, one instruction of 32 threads each |
| FMA | 128 | float32 add, multiply, fused; packed 16-bit arithmetic; 64 on 8.0 for float32 |
| FMA_HEAVY | 64 | the half of FMA that multiplies integers |
| ALU | 64 | integers, logic, comparisons, minima and maxima, selections, permutations |
| XU | 16 | exponential, logarithm, reciprocal, conversions |
| LSU | 32 | loads, stores, shuffles; shared memory delivers 128 bytes |
| FP64 | 64 | |

SMs, boost clock and bandwidth are those of the datasheets (A100 80 GB SXM, H100 SXM, H200, HGX B200). Memory latency:
470 to 700 clocks for an L2 miss on an H100 (Luo et al., "Benchmarking and Dissecting the Nvidia Hopper GPU Architecture
via Microbenchmarking", 2024); the model takes 650.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from sass import Instruction


@dataclass(frozen=True)
class Chip:
    name: str
    sms: int
    clock: float  # per second
    bandwidth: float  # bytes per second
    fma: int = 128
    shared_bytes: int = 227 << 10
    registers: int = 65536
    warps: int = 64
    blocks: int = 32

    @property
    def bytes_per_clock(self) -> float:
        """Of memory, per SM."""
        return self.bandwidth / self.sms / self.clock


CHIPS = {
    "A100": Chip("A100", 108, 1.41e9, 2.04e12, fma=64, shared_bytes=163 << 10),
    "H100": Chip("H100", 132, 1.755e9, 3.35e12),
    "H200": Chip("H200", 132, 1.755e9, 4.8e12),
    "B200": Chip("B200", 148, 1.85e9, 8.0e12),
}
_LATENCY = {"SHFL": 24, "LDS": 28, "STS": 20, "S2R": 30, "LDC": 40, "BAR": 20, "ATOMS": 60, "STG": 20}
_PIPE_LATENCY = {"XU": 24, "UNIFORM": 12, "FP64": 20}
MEMORY_LATENCY = 650
MIO = ("LSU", "SHFL", "BAR")  # share one queue


@dataclass
class Mix:
    """What one thread issues, weighted."""

    total: float = 0
    pipes: Counter[str] = field(default_factory=Counter)
    loaded_bytes: float = 0
    shared_words: float = 0

    @staticmethod
    def of(code: Iterable[Instruction], weight: float = 1) -> Mix:
        mix = Mix()
        for i in code:
            mix.total += weight
            mix.pipes[i.pipe] += weight  # type: ignore[assignment]
            if i.name in ("LDG", "LDGSTS"):
                mix.loaded_bytes += weight * i.bytes
            if i.name in ("LDS", "STS", "LDSM", "STSM"):
                mix.shared_words += weight * max(1, i.bytes // 4)
        return mix


def occupancy(chip: Chip, registers: int, shared_bytes: int, warps: int) -> int:
    """Thread blocks that an SM holds."""
    per_warp = -(-registers * 32 // 256) * 256
    by_shared = (chip.shared_bytes + 1024) // (shared_bytes + 1024)
    return min(chip.registers // (per_warp * warps), by_shared, chip.warps // warps, chip.blocks)


def clocks(mix: Mix, chip: Chip) -> dict[str, float]:
    """Clocks of an SM that each limit but the memory needs for one thread's instructions."""
    p = mix.pipes
    return {
        "issue": mix.total / 128,
        "FMA": (p["FMA"] + p["FMA_HEAVY"]) / chip.fma,
        "integer multiplication": p["FMA_HEAVY"] / 64,
        "ALU": p["ALU"] / 64,
        "XU": p["XU"] / 16,
        "LSU": max(sum(p[pipe] for pipe in MIO) / 32, mix.shared_words / 32),
        "FP64": p["FP64"] / 64,
    }


def roof(mix: Mix, chip: Chip) -> tuple[float, str]:
    """The largest fraction of the bandwidth that the loads of a mix can reach, and what limits it."""
    needed = clocks(mix, chip)
    limit = max(needed, key=lambda name: needed[name])
    memory = mix.loaded_bytes / chip.bytes_per_clock
    return (1.0, "memory") if memory >= needed[limit] else (memory / needed[limit], limit)


@dataclass
class _Warp:
    block: int
    ready: float = 0
    at: int = 0
    scoreboards: list[float] = field(default_factory=lambda: [0.0] * 8)
    stopped: bool = False  # at a barrier or at its end


def fraction_of_bandwidth(issued: list[Instruction], chip: Chip, blocks: int, warps: int) -> float:
    """What the loads of blocks of that many warps take of the memory's bandwidth."""
    loaded = warps * 32 * Mix.of(issued).loaded_bytes
    return loaded / chip.bytes_per_clock / replay(issued, chip, blocks, warps)


def replay(issued: list[Instruction], chip: Chip, blocks: int, warps: int, waves: int = 3) -> float:
    """Clocks from one finished block to the next on an SM that holds ``blocks``, of that many warps.

    issued: what a warp issues in its life. One sub-partition runs ``blocks`` x ``waves`` blocks, of which the middle
    third counts.
    """
    blocks_per_run = max(1, 4 // warps)  # of few warps, each sub-partition has blocks of its own
    if warps < 4:  # several blocks share the sub-partitions evenly
        blocks, per_block = max(1, blocks * warps // 4), 1
    else:
        per_block = warps // 4
    interval = {"FMA": 128 / chip.fma, "FMA_HEAVY": 2, "ALU": 2, "XU": 8, "LSU": 4, "FP64": 2}
    bytes_per_clock = chip.bytes_per_clock / 4
    free: defaultdict[str, float] = defaultdict(float)
    resident = [_Warp(block, block * 37.0) for block in range(blocks) for _ in range(per_block)]
    barriers: defaultdict[tuple[int, int], list[_Warp]] = defaultdict(list)
    started, finished, total = blocks, 0, blocks * waves
    now = memory_free = 0.0
    marks: list[tuple[float, int]] = []
    last = 0
    while finished < total:
        chosen, when = -1, float("inf")
        for offset in range(len(resident)):
            index = (last + offset) % len(resident)
            warp = resident[index]
            if warp.stopped:
                continue
            i = issued[warp.at]
            waited = (warp.scoreboards[s] for s in range(6) if i.waits >> s & 1)
            at = max(warp.ready, free["LSU" if i.pipe in MIO else i.pipe], *waited)
            if at < when:
                chosen, when = index, at
                if at <= now:
                    break
        warp, now, last = resident[chosen], max(now, when), chosen
        i = issued[warp.at]
        pipe = "LSU" if i.pipe in MIO else i.pipe
        free[pipe] = now + (4 * max(1, i.bytes // 4) if i.name in ("LDS", "STS") else interval.get(pipe, 1))
        if i.name in ("LDG", "LDGSTS"):
            memory_free = max(memory_free, now) + i.bytes * 32 / bytes_per_clock
            done = max(now + MEMORY_LATENCY, memory_free + MEMORY_LATENCY / 2)
        else:
            done = now + _LATENCY.get(i.name, _PIPE_LATENCY.get(i.pipe, 24))
        if i.sets < 6:
            warp.scoreboards[i.sets] = max(warp.scoreboards[i.sets], done)
        if i.frees < 6:
            warp.scoreboards[i.frees] = max(warp.scoreboards[i.frees], now + 12)
        warp.ready = now + max(1, i.stall)
        warp.at += 1
        if i.name == "BAR":
            waiting = barriers[warp.block, warp.at]
            waiting.append(warp)
            warp.stopped = len(waiting) < per_block
            if not warp.stopped:
                for other in waiting:
                    other.stopped, other.ready = False, now + _LATENCY["BAR"]
        now += 1
        if warp.at == len(issued):
            warp.stopped = True
            own = [w for w in resident if w.block == warp.block]
            if all(w.at == len(issued) for w in own):
                finished += 1
                if finished in (total // 3, total * 2 // 3):
                    marks.append((now, finished))
                for w in own:
                    w.block, w.ready, w.at, w.scoreboards, w.stopped = started, now + 200, 0, [0.0] * 8, False
                started += 1
    (begin, before), (end, after) = marks
    return (end - begin) / (after - before) / blocks_per_run
