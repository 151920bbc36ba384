"""Settings of a memory plan."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import Settings
from .train import Checkpointing, Optimizer


class PlanConfig(Settings):
    """What memory a training step takes."""

    model: str
    """The model: qwen3-4b, qwen3.5-4b, or a directory with a config.json. Weights are not read."""
    seq_lengths: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)] = (32768, 49152, 65536)
    """The trace lengths to plan for, in tokens."""
    device: Literal["cuda", "cpu"] = "cuda"
    """The kind of device to plan for. It need not be present."""
    device_gb: Annotated[float, Field(gt=0)] = 80.0
    """The memory of the device, in GB (1e9 bytes)."""
    labels_per_position: Annotated[int, Field(ge=1)] = 1
    """Number of labels per position: 1 for the sampled loss; for the soft loss the number of stored top
    log-probabilities, for example 20."""
    optimizer: Optimizer = "adamw"
    """The optimizer, as in `ssdfast train`."""
    offload_optimizer: bool = False
    """Keep AdamW's moments and its step on the host, as in `ssdfast train`."""
    activation_checkpointing: Checkpointing = "full_offload"
    """What is stored for the backward pass, as in `ssdfast train`."""
    sequence_tile_size: Annotated[int, Field(ge=0)] = 2048
    """Number of tokens that a layer's parts process at a time, as in `ssdfast train`. 0 switches tiling off."""
    compare_settings: bool = True
    """Also print the peak memory of other settings."""

    @model_validator(mode="after")
    def _agrees(self) -> PlanConfig:
        if self.offload_optimizer and (self.optimizer != "adamw" or self.device == "cpu"):
            raise ValueError("offload_optimizer moves adamw's moments off a GPU: it needs optimizer=adamw, device=cuda")
        return self
