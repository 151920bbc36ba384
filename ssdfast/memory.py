"""How much memory there is, and how much a piece of work took: of this process's GPU, or of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def free_bytes() -> int:
    """Of the GPU, or of the machine; a limit on this process alone is not looked for."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():  # caches count as free, as they are
        lines = meminfo.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def start_peak() -> None:
    """Forget the peak so far; `peak_bytes` is that of what follows."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif _CLEAR.exists():
        _CLEAR.write_text("5")


def peak_bytes() -> int:
    """Most that this process held since `start_peak`: torch's tensors on a GPU, resident memory without one.

    0 where the system does not say.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if not _STATUS.exists():
        return 0
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
