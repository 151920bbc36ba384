"""Settings of a memory plan."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import Settings


class PlanConfig(Settings):
    """What a training step would take."""

    model: str
    """qwen3-4b, qwen3.5-4b, or a directory with a model's config.json; weights are not read"""
    lengths: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)] = (32768, 49152, 65536)
    """tokens of a trace"""
    device: Literal["cuda", "cpu"] = "cuda"
    device_gb: Annotated[float, Field(gt=0)] = 80.0
    """memory of the device, in 1e9 bytes"""
    labels: Annotated[int, Field(ge=1)] = 1
    """at each place: 1 of the sampled loss; of the expected one the likeliest tokens, 20"""
    optimizer: Literal["adamw", "adamw_8bit", "adamw_bf16"] = "adamw"
    """as of `ssdfast train`, like those below"""
    offload_optimizer: bool = False
    recompute: bool = True
    tile_tokens: Annotated[int, Field(ge=0)] = 2048
    compare: bool = True
    """also say which other settings would fit"""

    @model_validator(mode="after")
    def _agrees(self) -> PlanConfig:
        if self.offload_optimizer and (self.optimizer != "adamw" or self.device == "cpu"):
            raise ValueError("offload_optimizer moves adamw's moments off a GPU: not another's, and not off a CPU")
        return self
