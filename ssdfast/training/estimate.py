"""What a training run will take: steps, tokens, the planned peak memory, and the time by a trial of a few steps."""

from __future__ import annotations

import torch

from .. import models
from ..config import TrainingRunConfig
from ..hub import local_path
from ..number_format import format_duration
from .diagnostics import warmup_warning
from .examples import Example
from .filters import read_training_examples
from .label_source import RECOMPUTED_LABELS
from .planning.plan import plan_training
from .runner import measure_speed
from .step_dataset import StepDataset


def estimate(config: TrainingRunConfig) -> str:
    """A line each for traces, steps, tokens, memory and time. Nothing is written.

    Raises ValueError for settings, traces or a model that cannot be trained or planned.
    """
    info = models.model_info(config.model)
    examples, report = read_training_examples(config, info)
    dataset = StepDataset(examples, config, config.seed, 1, True)
    warning = warmup_warning(len(dataset.steps), config.warmup_steps, config.learning_rate)
    trained_on = sum(len(example.trace.completion_ids) for example in examples)
    all_tokens = sum(len(example) for example in examples)
    speed = measure_speed(config)
    return "\n".join(
        [
            f"traces  {len(examples):,} of {report['before']['traces']:,}",
            f"steps   {len(dataset.steps):,} (epochs: {config.num_train_epochs}, traces per step: {config.batch_size})",
            *([f"warm-up {warning}"] if warning else []),
            f"tokens  {trained_on:,} completion tokens per epoch, {all_tokens:,} with prompts",
            *_memory(config, info, examples),
            f"speed   {speed:,.0f} tokens/s in a trial of a few steps",
            f"time    {format_duration(config.num_train_epochs * all_tokens / speed)}",
        ]
    )


def _memory(config: TrainingRunConfig, info: models.ModelInfo, examples: list[Example]) -> list[str]:
    if config.lora_rank:
        return ["memory  not planned with lora_rank"]
    if not local_path(config.model).is_dir():
        return ["memory  not planned for a GGUF file"]
    tokens = max(config.micro_batch_tokens, max(map(len, examples)))
    labels = 1 if config.loss == "sampled" else _labels_per_position(config, info, examples)
    planned = plan_training(config.model, config, tokens, labels)
    device = "GPU" if torch.cuda.is_available() else "CPU"
    lines = [f"memory  {planned.peak / 1e9:.1f} GB at the peak on a {device}, for a micro-batch of {tokens:,} tokens"]
    if planned.host:
        lines.append(f"host    {planned.host / 1e9:.1f} GB of layer inputs and moments")
    if config.loss == "soft" and config.soft_labels == "recompute":
        lines.append(f"labels  {4 * info.parameters / 1e9:.1f} GB more for the frozen copy of the model")
    return lines


def _labels_per_position(config: TrainingRunConfig, info: models.ModelInfo, examples: list[Example]) -> int:
    if config.soft_labels == "recompute":
        return min(RECOMPUTED_LABELS, info.vocabulary)
    return max((example.top_ids_LK.shape[1] for example in examples if example.top_ids_LK is not None), default=1)
