"""How many threads torch computes with on a CPU.

The last bits of a product depend on the number of threads. So training and probing keep torch's own number, whatever
else the machine does: a run that is continued, or made again, ends with the same bits.

Sampled ids do not depend on it, and sampling takes longest. Two threads that wait for one core are slower than one,
since each product waits for the slower of them, so it takes as many threads as there are cores that nobody else uses.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch

_log = logging.getLogger("ssdfast.threads")

_SECONDS = 0.25
"""How long other processes are watched."""


def set_threads(num_threads: int) -> None:
    """Let torch use so many threads; 0 changes nothing."""
    if num_threads:
        torch.set_num_threads(num_threads)


@contextlib.contextmanager
def free_cores_only(num_threads: int) -> Iterator[None]:
    """Within, torch uses so many threads; 0 takes as many as there are free cores, unless OMP_NUM_THREADS is set.

    On a machine with a GPU, 0 changes nothing.
    """
    before = torch.get_num_threads()
    if num_threads:
        torch.set_num_threads(num_threads)
    elif not (torch.cuda.is_available() or os.environ.get("OMP_NUM_THREADS")):
        usable = usable_cores()
        free = free_cores(usable)
        torch.set_num_threads(min(free, before))
        if free < min(usable, before):
            _log.info(f"{usable - free} of {usable} cores are busy: computing with {free}, --num-threads sets another")
    try:
        yield
    finally:
        torch.set_num_threads(before)


def usable_cores() -> int:
    """The cores that this process may use, by its affinity and its control group's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(_quota() or cores)))


def free_cores(usable: int) -> int:
    """How many of the usable cores idle now, rounded to the nearest, at least 1; all where that cannot be read."""
    before = _busy_and_total()
    if before is None:
        return usable
    time.sleep(_SECONDS)
    after = _busy_and_total()
    assert after
    total = after[1] - before[1]
    busy = usable * (after[0] - before[0]) / total if total else 0.0
    return max(1, min(usable, round(usable - busy)))


def _busy_and_total(path: Path = Path("/proc/stat")) -> tuple[int, int] | None:
    """Ticks of all cores since the machine started; this process sleeps meanwhile and does not count."""
    try:
        ticks = [int(value) for value in path.read_text().split("\n", 1)[0].split()[1:9]]
    except OSError:
        return None
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)


def _quota(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> float | None:
    try:
        quota, period = path.read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)
