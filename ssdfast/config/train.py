"""Settings of training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import Settings
from .decoding import PRESETS, SamplingConfig


class TrainConfig(Settings):
    """Fine-tuning on raw samples; the defaults are the published ones."""

    loss: Literal["sampled", "expected"] = "sampled"
    """sampled: cross-entropy of the tokens that were drawn; expected: of the distribution that they were drawn from,
    the same gradient on average and far less noise"""
    lr: Annotated[float, Field(gt=0)] = 5e-6
    """peak learning rate"""
    min_lr: Annotated[float, Field(ge=0)] = 1e-6
    """learning rate at the end of the cosine"""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """steps from 0 to the peak"""
    weight_decay: float = 0.1
    batch_size: Annotated[int, Field(ge=1)] = 32
    """traces a step, on all devices together"""
    micro_batch: Annotated[int, Field(ge=1)] = 4
    """traces of a forward pass, padded to the longest; the gradient's noise shows from two passes a step on"""
    pack_tokens: Annotated[int, Field(ge=0)] = 0
    """tokens of a forward pass of traces packed into one row, as many passes a step as `batch_size` traces fill on
    average; 0 pads `micro_batch` traces instead"""
    recompute: bool = False
    """keep each layer's input alone (on the host where there is a GPU) and compute the layer again in the backward
    pass: memory for long traces, a third more time"""
    tile_tokens: Annotated[int, Field(ge=0)] = 0
    """tokens that an MLP or a linear attention computes at a time, so that its intermediates never exist for a whole
    long trace; a multiple of 64 for models with linear attention; 0 is all"""
    epochs: Annotated[int, Field(ge=1)] = 1
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _divides(self) -> TrainConfig:
        if not self.pack_tokens and self.batch_size % min(self.micro_batch, self.batch_size):
            raise ValueError(f"a batch_size of {self.batch_size} is no multiple of a micro_batch of {self.micro_batch}")
        return self


class FinetuneConfig(TrainConfig):
    """A model, traces, and how the one learns from the others."""

    model: str
    """directory of safetensors or a GGUF file"""
    traces: str
    """what to learn: a run of `ssdfast sample`, a directory of traces, or a Parquet file"""
    labels: Literal["stored", "frozen"] = "stored"
    """expected: from the likeliest tokens that sampling kept (--top-logprobs), or computed by a frozen copy of the
    model"""
    decoding_of: Literal["traces", "settings"] = "traces"
    """expected: the sampling distribution is what the traces say of their decoding, or what `decoding` says"""
    decoding: SamplingConfig = SamplingConfig(**PRESETS["math"].train.model_dump())
    max_tokens: Annotated[int, Field(ge=0)] = 0
    """of a trace with its prompt; 0 is the model's context"""
    overlong: Literal["error", "drop", "truncate"] = "error"
    """what to do with longer traces. Dropping them shows the model only traces that finish"""
    only_correct: bool = False
    """learn from traces that are right alone (column `correct`)"""
    save_every: Annotated[int, Field(ge=1)] = 50
    """steps between two checkpoints, of which the last two are kept"""
    seed: int = 0


class TrainExecution(Settings):
    """How training runs and reports."""

    trackers: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """where metrics go besides metrics.jsonl, as transformers names them: tensorboard, wandb, mlflow, ..."""
    dry_run: bool = False
    """take 5 steps, say what they show, and leave nothing"""
