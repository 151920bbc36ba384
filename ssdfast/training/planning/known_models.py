"""Configurations of published models, for plans without their files."""

from __future__ import annotations

from typing import Any

import transformers

from ... import models
from ...hub import local_path

_QWEN3_4B: dict[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 262144,
    "tie_word_embeddings": True,
}
_QWEN3_5_4B: dict[str, Any] = {
    "vocab_size": 248320,
    "hidden_size": 2560,
    "intermediate_size": 9216,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "max_position_embeddings": 262144,
    "tie_word_embeddings": True,
}
KNOWN_MODELS = ("qwen3-4b", "qwen3.5-4b")


def text_config(model: str) -> Any:
    """The configuration of the text model of that name, or of the directory with its config.json.

    Raises ValueError for any other name, and for a config.json that cannot be read.
    """
    if model == "qwen3-4b":
        return transformers.Qwen3Config(**_QWEN3_4B)
    if model == "qwen3.5-4b":
        return transformers.Qwen3_5TextConfig(**_QWEN3_5_4B)
    path = local_path(model)
    if not (path / "config.json").is_file():
        raise ValueError(f"{model} is neither a directory with a config.json nor one of {', '.join(KNOWN_MODELS)}")
    return models.text_config(path)
