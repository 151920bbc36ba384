"""Settings of training."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import Settings


class TrainConfig(Settings):
    """Plain fine-tuning on raw samples; the defaults are the published ones."""

    lr: Annotated[float, Field(gt=0)] = 5e-6
    """peak learning rate"""
    min_lr: Annotated[float, Field(ge=0)] = 1e-6
    """learning rate at the last step of the cosine"""
    weight_decay: float = 0.1
    batch_size: Annotated[int, Field(ge=1)] = 32
    """traces a step"""
    epochs: Annotated[int, Field(ge=1)] = 1
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
