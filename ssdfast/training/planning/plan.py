"""``ssdfast plan``: the peak memory of a training step by part, and which settings fit a device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from ...config import PlanConfig, TrainConfig
from .known_models import settings_of
from .memory_tracker import HOST
from .meta_step import Bytes, of_optimizer, of_passes, of_step, on_device

SETTINGS = ("optimizer", "offload_optimizer", "activation_checkpointing", "sequence_tile_size")
"""that a plan compares"""


@dataclass(frozen=True)
class Planned:
    """A step with some settings on a trace of `tokens`."""

    settings: TrainConfig
    tokens: int
    parts: Bytes
    """at the peak of the device"""

    @property
    def peak(self) -> int:
        """Bytes on the device."""
        return on_device(self.parts)

    @property
    def host(self) -> int:
        """Bytes beside the device."""
        return self.parts[HOST]


def plan(config: PlanConfig) -> list[Planned]:
    """The settings asked, at each length. Raises ValueError for settings or a model that cannot be."""
    asked = _settings(config, {})
    return [_planned(config, asked, tokens) for tokens in sorted(set(config.seq_lengths))]


def plan_training(model: str, training: TrainConfig, tokens: int, labels: int) -> Planned:
    """A step of a training run on this machine's kind of device, with so many labels per position."""
    on_gpu = torch.cuda.is_available()
    config = PlanConfig(
        model=model,
        seq_lengths=(tokens,),
        device="cuda" if on_gpu else "cpu",
        labels_per_position=labels,
        optimizer=training.optimizer,
        offload_optimizer=training.offload_optimizer and on_gpu,  # a CPU is its own host
        activation_checkpointing=training.activation_checkpointing,
        sequence_tile_size=training.sequence_tile_size,
    )
    return plan(config)[0]


def compared(config: PlanConfig) -> Iterator[list[Planned]]:
    """Other settings at each length, by what they cost in time and in exactness."""
    tile = config.sequence_tile_size or PlanConfig.model_fields["sequence_tile_size"].default
    bounded = {
        "activation_checkpointing": "full_offload",
        "sequence_tile_size": tile,
        "optimizer": "adamw",
        "offload_optimizer": False,
    }
    rows: list[dict[str, Any]] = [
        {"activation_checkpointing": "none", "sequence_tile_size": 0},
        {"sequence_tile_size": 0},
        {},
        {"optimizer": "adamw_8bit"},
        {"optimizer": "adamw_bf16"},
    ]
    if config.device == "cuda":
        rows.insert(3, {"offload_optimizer": True})
    for row in rows:
        settings = _settings(config, bounded | row)
        yield [_planned(config, settings, tokens) for tokens in sorted(set(config.seq_lengths))]


def _settings(config: PlanConfig, changes: dict[str, Any]) -> TrainConfig:
    """Without layer kernels, whose memory is not known here: they take less than torch's."""
    values = {name: getattr(config, name) for name in SETTINGS} | changes
    return TrainConfig(**values, attn_implementation="sdpa", layer_kernels="torch")


def _planned(config: PlanConfig, settings: TrainConfig, tokens: int) -> Planned:
    on_gpu = config.device == "cuda"
    in_bf16 = settings.optimizer == "adamw_bf16"
    # Passes are the same whatever keeps the moments of float32 weights.
    alike = settings.model_copy(update={} if in_bf16 else {"optimizer": "adamw", "offload_optimizer": False})
    passes = _passes(config.model, alike, on_gpu, tokens, config.labels_per_position)
    optimizer = settings.model_copy(update={"activation_checkpointing": "none", "sequence_tile_size": 0})
    return Planned(settings, tokens, of_step(passes, *_optimizer(config.model, optimizer, on_gpu)))


@cache
def _passes(model: str, settings: TrainConfig, on_gpu: bool, tokens: int, labels: int) -> Bytes:
    return of_passes(settings_of(model), settings, on_gpu, tokens, labels)


@cache
def _optimizer(model: str, settings: TrainConfig, on_gpu: bool) -> tuple[Bytes, Bytes]:
    return of_optimizer(settings_of(model), settings, on_gpu)
