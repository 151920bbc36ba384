"""A loaded model as training runs it: its loss as its forward, in memory that the settings bound.

The trainer and the memory plan both come here, so that what is planned is what runs.
"""

from __future__ import annotations

from typing import Any

import torch

from ..config import TrainConfig
from .loss import make_trainable
from .memory import checkpoint_layers
from .tiles import tile_linear_attention, tile_mlps


def prepare(network: Any, config: TrainConfig, on_gpu: bool) -> Any:
    """`network`, a causal LM of transformers, changed in place; its forward is that of `make_trainable`.

    on_gpu: layers that are recomputed wait on the host and compute in bfloat16.
    """
    make_trainable(network)
    if config.tile_tokens:
        tile_mlps(network, config.tile_tokens)
        tile_linear_attention(network, config.tile_tokens)
    if config.recompute:
        checkpoint_layers(network, offload=on_gpu, dtype=torch.bfloat16 if on_gpu else None)
    return network
