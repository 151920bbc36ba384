"""The memory that a study's stages take, before they run: training's by its plan, probing's by the weights."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ... import models
from ...config import StudyConfig, TrainConfig
from ...number_format import format_bytes
from ...training.planning.plan import plan_training

_SOFT_LABELS = 20
"""Labels per position of the soft loss."""
_BYTES_PER_WEIGHT = 4


def format_memory(config: StudyConfig, model: str) -> Iterator[str]:
    """One line for each of the arms' training settings, and one for probing. model: the baseline's path."""
    device = "GPU" if torch.cuda.is_available() else "CPU"
    arms_by_training: dict[TrainConfig, list[str]] = {}
    for arm in config.arms:
        arms_by_training.setdefault(config.arm_training(arm), []).append(arm)
    for training, arms in arms_by_training.items():
        tokens = max(config.train_max_new_tokens, training.micro_batch_tokens)
        peak = "not planned, with LoRA" if training.lora_rank else format_bytes(_peak(model, training, tokens))
        yield (
            f"memory to train {', '.join(arms)}: {peak} on a {device} for micro-batches of {tokens:,} tokens"
            " (ssdfast plan)"
        )
    weights = 2 * _BYTES_PER_WEIGHT * models.model_info(model).parameters
    yield f"memory to probe: {format_bytes(weights)} of weights of both models in float32 (ssdfast probe --estimate)"


def _peak(model: str, training: TrainConfig, tokens: int) -> int:
    return plan_training(model, training, tokens, _SOFT_LABELS if training.loss == "soft" else 1).peak
