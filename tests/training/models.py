"""Models of the architectures that training is bounded for, small enough for a test; and a trace to train on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    Qwen3_5ForCausalLM,
    Qwen3_5TextConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCABULARY = 96
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 4096,
    "initializer_range": 0.2,
}
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}


def config(name: str, **changes: int | bool) -> PreTrainedConfig:
    if name == "qwen3":
        return Qwen3Config(**{**SHAPE, "num_hidden_layers": 2, "tie_word_embeddings": True, **changes})
    if name == "llama":
        return LlamaConfig(**{**SHAPE, "num_hidden_layers": 2, "tie_word_embeddings": False, **changes})
    return Qwen3_5TextConfig(**{**SHAPE, **LINEAR, "num_hidden_layers": 4, "tie_word_embeddings": True, **changes})


def build(config: PreTrainedConfig) -> nn.Module:
    torch.manual_seed(0)
    of = {"qwen3": Qwen3ForCausalLM, "llama": LlamaForCausalLM, "qwen3_5_text": Qwen3_5ForCausalLM}
    return of[config.model_type](config)


def trace(tokens: int, vocabulary: int = VOCABULARY, k: int = 3) -> tuple[Any, ...]:
    """Arguments of a trainable model: the first quarter is the prompt."""
    random = torch.Generator().manual_seed(tokens)
    row_S = torch.arange(tokens // 4, tokens)
    return (
        {"input_ids": torch.randint(vocabulary, (1, tokens), generator=random), "row_S": row_S},
        torch.rand(len(row_S), vocabulary, generator=random).topk(k, -1).indices,
        torch.rand(len(row_S), k, generator=random).softmax(-1),
        torch.ones(len(row_S)),
    )


def step(model: nn.Module, tokens: int) -> Tensor:
    """Adds the gradients of the summed loss of a trace; returns the loss."""
    loss: Tensor = model(*trace(tokens))["loss"]
    loss.backward()
    return loss.detach()
