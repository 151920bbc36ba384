"""What memory the stages of a study will take, before they run: training's by its plan, probing's by the weights."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ... import models
from ...config import PlanConfig, StudyConfig, TrainConfig
from ...training.planning.plan import plan

_LABELS = 20
"""of the soft loss per position"""


def told(config: StudyConfig, model: str) -> Iterator[str]:
    """A line for each of the arms' ways to train, and one for probing. model: the baseline's path."""
    device = "GPU" if torch.cuda.is_available() else "CPU"
    ways: dict[TrainConfig, list[str]] = {}
    for arm in config.arms:
        ways.setdefault(config.training_of(arm), []).append(arm)
    for training, arms in ways.items():
        tokens = max(config.max_new_tokens, training.micro_batch_tokens)
        peak = f"{_peak(model, training, tokens) / 1e9:.1f} GB" if not training.lora_rank else "not planned, with LoRA"
        yield f"memory to train {', '.join(arms)}: {peak} on a {device} for {tokens:,} tokens a pass (ssdfast plan)"
    weights = 2 * 4 * models.outline(model).parameters
    yield f"memory to probe: {weights / 1e9:.1f} GB of weights of both models, in float32 (ssdfast probe --estimate)"


def _peak(model: str, training: TrainConfig, tokens: int) -> int:
    asked = PlanConfig(
        model=model,
        seq_lengths=(tokens,),
        device="cuda" if torch.cuda.is_available() else "cpu",
        labels_per_position=_LABELS if training.loss == "soft" else 1,
        optimizer=training.optimizer,
        offload_optimizer=training.offload_optimizer,
        activation_checkpointing=training.activation_checkpointing,
        sequence_tile_size=training.sequence_tile_size,
        compare_settings=False,
    )
    return plan(asked)[0].peak
