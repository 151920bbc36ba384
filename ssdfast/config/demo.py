"""Settings of the demo."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import Settings
from .decoding import PRESETS, DecodingConfig
from .train import TrainConfig


class DemoConfig(Settings):
    """Sample, fine-tune on the raw samples, probe: self-distillation of a 135M model on a laptop."""

    train_problems: Annotated[int, Field(ge=1)] = 80
    held_out_problems: Annotated[int, Field(ge=1)] = 32
    max_new_tokens: Annotated[int, Field(ge=1)] = 48
    sampling: DecodingConfig = PRESETS["demo"].train
    # The published learning rate would not visibly move a model in the two dozen steps that fit into a minute.
    training: TrainConfig = TrainConfig(lr=3e-5, min_lr=6e-6, batch_size=4)
    seed: int = 0
