"""The processor that the models run on."""

from __future__ import annotations

import torch


def device_name() -> str:
    """Of the GPU, or "cpu"."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def fast_dtype() -> str:
    """bfloat16 on a GPU and on a CPU with a matrix unit for it (Intel's AMX), else float32."""
    return "bfloat16" if torch.cuda.is_available() or torch.cpu._is_amx_tile_supported() else "float32"
