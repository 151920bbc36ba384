"""Settings of training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .base import Settings
from .sampling_params import PRESETS, EngineSamplingParams

Optimizer = Literal["adamw", "adamw_8bit", "adamw_bf16"]
Checkpointing = Literal["none", "full", "full_offload"]


class TrainConfig(Settings):
    """The hyperparameters of fine-tuning on raw samples; the defaults are the paper's."""

    loss: Literal["sampled", "soft"] = "sampled"
    """The training loss. sampled: cross-entropy of the sampled tokens. soft: cross-entropy of the whole distribution
    that each token was sampled from, which is the expectation of the sampled loss and has far less gradient noise."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-6
    """The peak learning rate."""
    min_learning_rate: Annotated[float, Field(ge=0)] = 1e-6
    """The learning rate at the end of the cosine schedule."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Number of steps of linear warmup from 0 to the peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """The weight decay of AdamW."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Number of traces per optimizer step, over all devices together."""
    num_train_epochs: Annotated[int, Field(ge=1)] = 1
    """Number of passes over the training traces."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """The norm that gradients are clipped to."""
    optimizer: Optimizer = "adamw"
    """The optimizer and its precision. adamw: weights and moments in float32, 16 bytes per weight with its gradient.
    adamw_8bit: moments in 8 bits, 10 bytes per weight. adamw_bf16: weights and moments in bfloat16 with stochastic
    rounding, 10 bytes per weight. The last two need torchao."""
    lora_rank: Annotated[int, Field(ge=0)] = 0
    """The rank of LoRA adapters on all linear layers (alpha is twice the rank), which are trained instead of the
    weights and merged at the end. 0 trains the weights."""
    micro_batch_tokens: Annotated[int, Field(ge=1)] = 2048
    """The token budget of one micro-batch (one forward pass). Traces are packed into one row, or padded where the model
    cannot keep packed traces apart. A longer trace has a micro-batch of its own."""
    activation_checkpointing: Checkpointing = "none"
    """What is stored for the backward pass. none: all activations. full: the input of each layer, and the layer is
    computed again, about a third more time. full_offload: the same, with the inputs in host memory where there is a
    GPU."""
    sequence_tile_size: Annotated[int, Field(ge=0)] = 0
    """Number of tokens that an MLP or a linear attention processes at a time (a norm four times as many), so that
    intermediates of a whole long trace never exist. It must be a multiple of 64 for models with linear attention. 0
    switches tiling off."""
    offload_optimizer: bool = False
    """Keep AdamW's moments and its step on the host, which takes 8 bytes per weight less on the GPU."""
    attn_implementation: Literal["auto", "sdpa", "eager", "flash_attention_2", "flash_attention_4"] = "auto"
    """The attention implementation, by transformers' name. auto: flash-attention 4 or 2 where there is a GPU and it is
    installed, otherwise sdpa, or eager for an architecture that has no other."""
    layer_kernels: Literal["auto", "torch", "liger"] = "auto"
    """The kernels of norms, MLPs and rotary embeddings. auto: Liger's where there is a GPU and it is installed,
    otherwise torch's."""

    model_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """The dtype in which the trained model is saved. auto: that of the weights in training, float32 unless
    optimizer=adamw_bf16. A probe of small shifts needs float32; bfloat16 takes half the disk."""

    @model_validator(mode="after")
    def _agrees(self) -> TrainConfig:
        if self.offload_optimizer and self.optimizer != "adamw":
            raise ValueError(f"offload_optimizer moves adamw's moments, not those of {self.optimizer}")
        if self.lora_rank and self.optimizer == "adamw_bf16":
            raise ValueError("lora_rank with optimizer=adamw_bf16: adapters are few weights; train them with adamw")
        return self


# What published recipes set besides the defaults, which are the paper's.
SCHEDULES: dict[str, dict[str, Any]] = {
    # A reproduction (https://github.com/apple/ml-ssd/issues/7) reports that the paper trains its instruct models for
    # 2500 steps, 250 of them warm-up. The epochs that make so many steps depend on the number of traces: set both.
    "paper-4b-instruct": {"max_length": 65_536},
    "paper-30b-instruct": {"max_length": 65_536},
    "paper-4b-thinking": {"max_length": 65_536},
    "math": {"max_length": 32_768, "warmup_steps": 5},
    # The published learning rate would not visibly change a model in the two dozen steps that fit into a minute.
    "demo": {"learning_rate": 3e-5, "min_learning_rate": 6e-6, "batch_size": 4},
}


class _TrainInputs(Settings):
    model: str
    """The model to train: a directory of safetensors, or a GGUF file."""
    traces: str
    """The traces to train on: a run of `ssdfast sample`, a directory of traces, or a Parquet file."""


class TrainingRunConfig(TrainConfig, _TrainInputs):
    """What one training run is made from: a model, traces, labels and hyperparameters."""

    soft_labels: Literal["stored", "recompute"] = "stored"
    """Where the soft loss takes its labels from. stored: the top log-probabilities that sampling stored
    (--top-logprobs). recompute: a frozen copy of the model, or with lora_rank the model without its adapters."""
    sampling_from: Literal["traces", "config"] = "traces"
    """Where the soft loss takes the sampling parameters from: the columns of the traces, or `train_sampling`."""
    train_sampling: EngineSamplingParams = EngineSamplingParams(**PRESETS["math"].train_sampling.model_dump())
    """The sampling parameters of the traces, where `sampling_from` is config."""
    max_length: Annotated[int, Field(ge=0)] = 0
    """The maximum length of a trace, prompt and completion, in tokens. 0 takes the model's context length."""
    on_too_long: Literal["error", "drop", "truncate"] = "error"
    """What to do if a trace is longer than `max_length`. Dropping such traces shows the model only short ones."""
    correct_only: bool = False
    """Train on correct traces only (column `correct`)."""
    save_steps: Annotated[int, Field(ge=1)] = 50
    """Number of steps between two checkpoints. The last two are kept until the training ends."""
    keep_checkpoints: bool = False
    """Keep every checkpoint as a model in train/checkpoints, such as checkpoint-50, to probe the trajectory of the
    training. Each takes the size of the model in the dtype of training."""
    keep_adapters: bool = False
    """Write the LoRA adapters to train/adapters, as peft saves them, besides the model that they are merged into."""
    seed: int = 0
    """The seed of the order of traces and of LoRA's initial weights."""

    @model_validator(mode="after")
    def _has_adapters_to_keep(self) -> TrainingRunConfig:
        if self.keep_adapters and not self.lora_rank:
            raise ValueError("keep_adapters without lora_rank: there are no adapters to keep")
        if self.keep_checkpoints and self.lora_rank:
            raise ValueError("keep_checkpoints with lora_rank: its checkpoints are adapters, not models; use only one")
        return self


class TrainExecution(Settings):
    """How training runs and reports."""

    report_to: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Experiment trackers that get the metrics besides metrics.jsonl, by transformers' names: tensorboard, wandb,
    mlflow, ..."""
    fsdp: bool = False
    """Under torchrun, shard weights, gradients and moments over the devices (FSDP2) instead of replicating them."""
    num_threads: Annotated[int, Field(ge=0)] = 0
    """The number of threads to compute with on a CPU; 0 takes torch's own, whatever else the machine does: the last
    bits of the results depend on the number."""
    trial_steps: Annotated[int, Field(ge=0)] = 0
    """Number of steps of a trial run, which prints the metrics of each step and leaves no files. 0 trains."""
