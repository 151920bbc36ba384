"""Prepares a loaded model for training: its loss as its forward, in the memory that the settings allow.

The trainer and the memory plan both call `prepare`, so that the plan is of the model that runs.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import transformers

from ..config import TrainConfig
from ..processor import fast_dtype
from .activation_checkpointing import accumulate_in_float32, checkpoint_layers
from .loss import make_trainable
from .packed_attention import isolate_traces
from .tiled_layers import tile_linear_attention, tile_mlps, tile_norms


def prepare(network: Any, config: TrainConfig, on_gpu: bool) -> Any:
    """`network`, a causal LM of transformers, changed in place. Its forward is that of `make_trainable`.

    on_gpu: checkpointed layers compute in bfloat16, and their inputs are in host memory for full_offload. Raises
    ValueError for settings that this model or this machine does not support.
    """
    if _uses_liger(config, on_gpu):
        _use_liger(network)
    make_trainable(network)
    if config.sequence_tile_size:
        tile_mlps(network, config.sequence_tile_size)
        tile_norms(network, 4 * config.sequence_tile_size)  # an MLP is three or four times as wide
        tile_linear_attention(network, config.sequence_tile_size)
    if config.optimizer == "adamw_bf16":
        accumulate_in_float32(network)
    if config.activation_checkpointing != "none":
        offload = on_gpu and config.activation_checkpointing == "full_offload"
        checkpoint_layers(network, offload=offload, dtype=torch.bfloat16 if on_gpu else None)
    isolate_traces(network)
    return network


def weights_dtype(config: TrainConfig) -> str:
    """The dtype of the weights."""
    return "bfloat16" if config.optimizer == "adamw_bf16" else "float32"


def uses_autocast(config: TrainConfig, on_gpu: bool) -> bool:
    """Whether matrix products run under autocast to bfloat16. Checkpointed layers and bfloat16 weights need none.

    on_gpu: whether the training is planned for a GPU, or runs on one.
    """
    fast = on_gpu or fast_dtype() == "bfloat16"
    return fast and config.activation_checkpointing == "none" and weights_dtype(config) == "float32"


def attn_implementation(config: TrainConfig, on_gpu: bool, model_config: Any) -> str:
    """The attention implementation, by transformers' name.

    model_config: transformers' configuration of the model, whose architecture must have it. Raises ValueError if it is
    not available here.
    """
    available = {
        "flash_attention_4": on_gpu and transformers.utils.is_flash_attn_4_available(),
        "flash_attention_2": on_gpu and transformers.utils.is_flash_attn_2_available(),
        "sdpa": True,
        "eager": True,
    }
    if config.attn_implementation == "auto":
        return next(
            name for name, is_available in available.items() if is_available and has_attention(model_config, name)
        )
    if not available[config.attn_implementation]:
        raise ValueError(
            f"attn_implementation={config.attn_implementation} needs a GPU and flash-attn: use sdpa, or install it"
        )
    if not has_attention(model_config, config.attn_implementation):
        raise ValueError(
            f"{model_config.model_type} has no attention of the kind {config.attn_implementation} in transformers: use"
            " attn_implementation=auto"
        )
    return config.attn_implementation


def has_attention(model_config: Any, name: str) -> bool:
    """Whether transformers has this attention for the architecture; every one has the eager attention."""
    if name == "eager":
        return True
    try:
        with torch.device("meta"):
            transformers.AutoModelForCausalLM.from_config(copy.deepcopy(model_config), attn_implementation=name)
    except (ValueError, ImportError):
        return False
    return True


def add_lora(network: Any, rank: int) -> Any:
    """The peft model around `network`, whose only trainable weights are LoRA adapters of this rank on all linear layers
    but the head (Hu et al. 2021). Raises ValueError if peft is missing."""
    try:
        import peft
    except ImportError:
        raise ValueError("lora_rank needs peft: pip install 'ssdfast[train]'") from None
    # transformers' head is no target of "all-linear".
    return peft.PeftModel(network, peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"))


def _uses_liger(config: TrainConfig, on_gpu: bool) -> bool:
    if config.layer_kernels == "auto":
        return on_gpu and transformers.utils.is_liger_kernel_available()
    if config.layer_kernels == "liger" and not (on_gpu and transformers.utils.is_liger_kernel_available()):
        raise ValueError("layer_kernels=liger needs a GPU and liger-kernel: use torch, or pip install liger-kernel")
    return config.layer_kernels == "liger"


def _use_liger(network: Any) -> None:
    """For norms, MLPs and rotary embeddings; the loss is our own."""
    from transformers.integrations.liger import apply_liger_kernel

    apply_liger_kernel(network, {"fused_linear_cross_entropy": False, "cross_entropy": False})
