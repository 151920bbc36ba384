"""A loaded model as training runs it: its loss as its forward, in memory that the settings bound.

The trainer and the memory plan both come here, so that what is planned is what runs.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers

from ..config import TrainConfig
from .activation_checkpointing import accumulate_in_float32, checkpoint_layers
from .loss import make_trainable
from .packed_attention import separate
from .tiled_layers import tile_linear_attention, tile_mlps, tile_norms


def prepare(network: Any, config: TrainConfig, on_gpu: bool) -> Any:
    """`network`, a causal LM of transformers, changed in place; its forward is that of `make_trainable`.

    on_gpu: layers that are recomputed wait on the host and compute in bfloat16. Raises ValueError for settings that
    this model or this machine has nothing for.
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
    separate(network)
    return network


def weights_dtype(config: TrainConfig) -> str:
    """What the weights are kept in."""
    return "bfloat16" if config.optimizer == "adamw_bf16" else "float32"


def autocasts(config: TrainConfig, on_gpu: bool) -> bool:
    """Whether products are converted to bfloat16 as they come; otherwise layers or weights see to it themselves."""
    return on_gpu and config.activation_checkpointing == "none" and weights_dtype(config) == "float32"


def attention_for(config: TrainConfig, on_gpu: bool) -> str:
    """What computes attention, by transformers' name. Raises ValueError where that is not to be had here."""
    available = {
        "flash_attention_4": on_gpu and transformers.utils.is_flash_attn_4_available(),
        "flash_attention_2": on_gpu and transformers.utils.is_flash_attn_2_available(),
        "sdpa": True,
    }
    if config.attn_implementation == "auto":
        return next(name for name, here in available.items() if here)
    if not available[config.attn_implementation]:
        raise ValueError(
            f"attn_implementation={config.attn_implementation} needs a GPU and flash-attn: use sdpa, or install it"
        )
    return config.attn_implementation


def adapted(network: Any, rank: int) -> Any:
    """The peft model around `network`, whose only weights to train are adapters of this rank beside its linear layers
    (Hu et al. 2021), the head apart. Raises ValueError where peft is missing."""
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
    """Norms, MLPs and rotary embeddings; the loss is ours."""
    from transformers.integrations.liger import apply_liger_kernel

    apply_liger_kernel(network, {"fused_linear_cross_entropy": False, "cross_entropy": False})
