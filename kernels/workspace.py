"""How much memory a GPU operation may take for itself, outputs and sums apart."""

from __future__ import annotations

import os

VARIABLE = "SSDFAST_GPU_WORKSPACE_MB"


def gpu_workspace_bytes(default: int) -> int:
    """Bytes of the logits that exist at a time: SSDFAST_GPU_WORKSPACE_MB (MiB) if it is set, or the default.

    More of it makes fewer and larger products. Raises ValueError for a value that is not a positive whole number.
    """
    value = os.environ.get(VARIABLE, "")
    if not value:
        return default
    if not value.isascii() or not value.isdecimal() or int(value) == 0:
        raise ValueError(f"{VARIABLE} must be a positive whole number of MiB, got {value!r}")
    return int(value) << 20
