"""Settings of training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .base import Settings
from .sampling_params import PRESETS, SamplingConfig


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
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    batch_size: Annotated[int, Field(ge=1)] = 32
    """traces a step, on all devices together"""
    epochs: Annotated[int, Field(ge=1)] = 1
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    optimizer: Literal["adamw", "adamw_8bit", "adamw_bf16"] = "adamw"
    """adamw: weights and moments in float32, 16 bytes a weight with its gradient; adamw_8bit: moments in 8 bits, 10
    bytes; adamw_bf16: weights and moments in bfloat16, rounded by chance, 10 bytes. The last two by torchao"""
    lora_rank: Annotated[int, Field(ge=0)] = 0
    """train adapters of this rank beside all linear layers, scaled by 2, instead of the weights; merged at the end"""
    pass_tokens: Annotated[int, Field(ge=1)] = 2048
    """tokens of a forward pass: traces packed into one row, or padded where the model would let one read another. A
    longer trace has a pass to itself"""
    recompute: bool = False
    """keep each layer's input alone (on the host where there is a GPU) and compute the layer again in the backward
    pass: memory for long traces, a third more time"""
    tile_tokens: Annotated[int, Field(ge=0)] = 0
    """tokens that an MLP or a linear attention computes at a time, a norm four times as many, so that intermediates
    never exist for a whole long trace; a multiple of 64 for models with linear attention; 0 is all"""
    offload_optimizer: bool = False
    """adamw's moments on the host, and its step computed there: 8 bytes a weight less on the GPU"""
    attention: Literal["auto", "sdpa", "flash_attention_2", "flash_attention_4"] = "auto"
    """auto: flash-attention (4, or 2) where there is a GPU and it is installed, or torch's own"""
    layer_kernels: Literal["auto", "torch", "liger"] = "auto"
    """of norms, MLPs and rotary embeddings; auto: Liger's where there is a GPU and it is installed"""

    @model_validator(mode="after")
    def _agrees(self) -> TrainConfig:
        if self.offload_optimizer and self.optimizer != "adamw":
            raise ValueError(f"offload_optimizer moves adamw's moments, not those of {self.optimizer}")
        if self.lora_rank and self.optimizer == "adamw_bf16":
            raise ValueError("lora_rank with optimizer=adamw_bf16: adapters are few weights; train them with adamw")
        return self


# What published recipes set besides the defaults, which are the paper's.
SCHEDULES: dict[str, dict[str, Any]] = {
    "paper": {"max_tokens": 65_536},
    "math": {"max_tokens": 32_768, "warmup_steps": 5},
    # The published learning rate would not visibly move a model in the two dozen steps that fit into a minute.
    "demo": {"lr": 3e-5, "min_lr": 6e-6, "batch_size": 4},
}


class FinetuneConfig(TrainConfig):
    """A model, traces, and how the one learns from the others."""

    model: str
    """directory of safetensors or a GGUF file"""
    traces: str
    """what to learn: a run of `ssdfast sample`, a directory of traces, or a Parquet file"""
    labels: Literal["stored", "frozen"] = "stored"
    """expected: from the likeliest tokens that sampling kept (--top-logprobs), or computed by the frozen model: a copy
    of it, or with lora_rank the model itself without its adapters"""
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
    shard: bool = False
    """under torchrun: share weights, gradients and moments among the devices (FSDP2), instead of a copy each"""
    dry_run: bool = False
    """take 5 steps, say what they show, and leave nothing"""
