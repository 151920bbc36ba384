"""Settings of the demo."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import Settings
from .sampling_params import PRESETS, SamplingParams
from .train import SCHEDULES, TrainConfig


class DemoConfig(Settings):
    """Sample, fine-tune on the raw samples, probe: self-distillation of a 135M model on a laptop."""

    train_problems: Annotated[int, Field(ge=1)] = 80
    held_out_problems: Annotated[int, Field(ge=1)] = 32
    max_new_tokens: Annotated[int, Field(ge=1)] = 48
    sampling: SamplingParams = PRESETS["demo"].train_sampling
    training: TrainConfig = TrainConfig(**SCHEDULES["demo"])
    seed: int = 0
