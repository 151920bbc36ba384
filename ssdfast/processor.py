"""What the processor of the models multiplies fast."""

from __future__ import annotations

import torch


def fast_dtype() -> str:
    """bfloat16 on a GPU and on a CPU with a matrix unit for it (Intel's AMX), else float32."""
    return "bfloat16" if torch.cuda.is_available() or torch.cpu._is_amx_tile_supported() else "float32"
