"""How much memory there is, and how much a piece of work took: of this process's GPU, or of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import torch

_CLEAR = Path("/proc/self/clear_refs")


def free_bytes() -> int:
    """Of the GPU, or of the machine; a limit on this process alone is not looked for."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    # What Linux calls available counts caches as free, as they are.
    return _bytes_of("/proc/meminfo", "MemAvailable") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


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
    return resident_bytes("VmHWM")


def resident_bytes(what: str) -> int:
    """Of this process, now ("VmRSS") or at its peak ("VmHWM"); 0 where the system does not say."""
    return _bytes_of("/proc/self/status", what)


def _bytes_of(file: str, name: str) -> int:
    path = Path(file)
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)
