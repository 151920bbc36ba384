"""``ssdfast plan``: the peak memory of a training step by category, and which settings fit a device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from ...config import PlanConfig, TrainConfig
from .known_models import text_config
from .memory_tracker import HOST
from .meta_step import Bytes, device_bytes, forward_backward_peak, optimizer_peak, step_peak

SETTINGS = ("optimizer", "offload_optimizer", "activation_checkpointing", "sequence_tile_size")
"""settings that a plan varies"""


@dataclass(frozen=True)
class StepPlan:
    """The peak memory of a step with some settings, for one trace."""

    settings: TrainConfig
    seq_length: int
    """of the trace, in tokens"""
    by_category: Bytes
    """at the peak of the device"""

    @property
    def peak(self) -> int:
        """Bytes on the device."""
        return device_bytes(self.by_category)

    @property
    def host(self) -> int:
        """Bytes on the host, beside the device."""
        return self.by_category[HOST]


def plan(config: PlanConfig) -> list[StepPlan]:
    """The given settings at each length. Raises ValueError for settings or a model that cannot be planned."""
    settings = _settings(config, {})
    return [_plan_step(config, settings, length) for length in sorted(set(config.seq_lengths))]


def plan_training(model: str, training: TrainConfig, tokens: int, labels: int) -> StepPlan:
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


def plan_alternatives(config: PlanConfig) -> Iterator[list[StepPlan]]:
    """Other settings at each length, in order of their cost in time and precision."""
    tile = config.sequence_tile_size or PlanConfig.model_fields["sequence_tile_size"].default
    base = {
        "activation_checkpointing": "full_offload",
        "sequence_tile_size": tile,
        "optimizer": "adamw",
        "offload_optimizer": False,
    }
    alternatives: list[dict[str, Any]] = [
        {"activation_checkpointing": "none", "sequence_tile_size": 0},
        {"sequence_tile_size": 0},
        {},
        {"optimizer": "adamw_8bit"},
        {"optimizer": "adamw_bf16"},
    ]
    if config.device == "cuda":
        alternatives.insert(3, {"offload_optimizer": True})
    for changes in alternatives:
        settings = _settings(config, base | changes)
        yield [_plan_step(config, settings, length) for length in sorted(set(config.seq_lengths))]


def _settings(config: PlanConfig, changes: dict[str, Any]) -> TrainConfig:
    """With torch's layer kernels: the memory of others is not known here, and they take less."""
    values = {name: getattr(config, name) for name in SETTINGS} | changes
    return TrainConfig(**values, attn_implementation="sdpa", layer_kernels="torch")


def _plan_step(config: PlanConfig, settings: TrainConfig, length: int) -> StepPlan:
    on_gpu = config.device == "cuda"
    in_bf16 = settings.optimizer == "adamw_bf16"
    # The passes do not depend on the optimizer states of float32 weights, nor the optimizer on how layers compute.
    pass_settings = settings.model_copy(update={} if in_bf16 else {"optimizer": "adamw", "offload_optimizer": False})
    passes = _forward_backward(config.model, pass_settings, on_gpu, length, config.labels_per_position)
    optimizer = settings.model_copy(update={"activation_checkpointing": "none", "sequence_tile_size": 0})
    return StepPlan(settings, length, step_peak(passes, *_optimizer(config.model, optimizer, on_gpu)))


@cache
def _forward_backward(model: str, settings: TrainConfig, on_gpu: bool, tokens: int, labels: int) -> Bytes:
    return forward_backward_peak(text_config(model), settings, on_gpu, tokens, labels)


@cache
def _optimizer(model: str, settings: TrainConfig, on_gpu: bool) -> tuple[Bytes, Bytes]:
    return optimizer_peak(text_config(model), settings, on_gpu)
