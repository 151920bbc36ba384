"""Models and traces that fit in a test: a two-layer Llama, a tokenizer of whole words, random token ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ssdfast import traces

WORDS = ["<unk>", "</s>", "Wait", "But", "7", "42", "+", "=", "so", "\\frac", "</think>", "the"]
VOCABULARY = 96
CONTEXT = 48


def tokenizer(words: list[str] = WORDS, size: int = VOCABULARY) -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate([*words, *(f"word{i}" for i in range(size - len(words)))])}
    words_of = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words_of.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words_of, eos_token="</s>", unk_token="<unk>")


def config(rows: int = VOCABULARY) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=rows,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        eos_token_id=1,
        bos_token_id=None,
        initializer_range=0.35,  # wide enough for locks and forks to occur
    )


def save_model(path: Path, seed: int = 0, moved: float = 0.0, rows: int = VOCABULARY, words: list[str] = WORDS) -> str:
    """Write a random model; `moved` adds that much noise to every weight, as a training would."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config(rows))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(moved * torch.randn_like(weight))
    model.save_pretrained(path)
    tokenizer(words).save_pretrained(path)
    return str(path)


def save_pair(directory: Path) -> tuple[str, str]:
    return save_model(directory / "baseline"), save_model(directory / "trained", moved=0.02)


def trace_table(count: int, seed: int = 0, longest: int = 20, **columns: list) -> pa.Table:
    """`count` traces with random ids, prompts of 2 to 8 tokens and completions of 1 to `longest`."""
    rng = np.random.default_rng(seed)

    def ids(least: int, most: int) -> list[int]:
        return rng.integers(0, VOCABULARY, rng.integers(least, most + 1)).tolist()

    values = {
        "problem_id": [f"problem{i}" for i in range(count)],
        "sample": [0] * count,
        "prompt_ids": [ids(2, 8) for _ in range(count)],
        "completion_ids": [ids(1, longest) for _ in range(count)],
        "finish_reason": ["stop"] * count,
        "seed": list(range(count)),
        "engine": ["test"] * count,
        "temperature": [1.1] * count,
        "top_k": [20] * count,
        "top_p": [0.95] * count,
        "text": [""] * count,
    } | columns
    known = {field.name: field.type for field in traces.SCHEMA}
    return pa.table({name: pa.array(column, type=known.get(name)) for name, column in values.items()})


def save_traces(directory: Path, count: int = 10, seed: int = 0, **columns: list) -> str:
    traces.write_shard(directory, 0, trace_table(count, seed, **columns))
    return str(directory)
