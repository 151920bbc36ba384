"""Free memory and peak memory, of this process's GPU or of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import torch

_CLEAR = Path("/proc/self/clear_refs")


def free_bytes() -> int:
    """The free memory of the GPU, or of the machine; limits on this process alone are not considered."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    # Linux counts caches as available memory.
    return _read_bytes("/proc/meminfo", "MemAvailable") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def start_peak() -> None:
    """Reset the peak that `peak_bytes` returns."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif _CLEAR.exists():
        _CLEAR.write_text("5")


def peak_bytes() -> int:
    """The peak memory of this process since `start_peak`: torch's tensors on a GPU, resident memory without one.

    0 where the system does not report it.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resident_bytes("VmHWM")


def resident_bytes(what: str) -> int:
    """The resident memory of this process, now ("VmRSS") or at its peak ("VmHWM"); 0 where the system does not report
    it."""
    return _read_bytes("/proc/self/status", what)


def _read_bytes(file: str, name: str) -> int:
    path = Path(file)
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)
