"""A memory plan beside the resident memory of a real step: ``python bench/plan.py [MODEL_DIRECTORY TOKENS SETTINGS]``.

With arguments it takes two steps on this machine's CPU, and prints the peak bytes of the second one.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from memory import python

from ssdfast import memory_usage
from ssdfast.config import PlanConfig, TrainConfig
from ssdfast.training.diagnostics import NoiseScale
from ssdfast.training.optimizers import optimizer_cls_and_kwargs
from ssdfast.training.planning.plan import plan
from ssdfast.training.prepare_model import prepare

GB = 1e9
_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of malloc.h
SMALL: dict[str, Any] = {
    "vocab_size": 8000, "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 64, "tie_word_embeddings": True, "max_position_embeddings": 32768,
}  # fmt: skip
MODELS = {
    "qwen3": transformers.Qwen3Config(**SMALL, num_hidden_layers=4),
    "qwen3.5": transformers.Qwen3_5TextConfig(
        **SMALL, num_hidden_layers=4, linear_num_key_heads=4, linear_num_value_heads=8, linear_key_head_dim=64,
        linear_value_head_dim=64,
    ),
}  # fmt: skip
TOKENS = 768
PLAIN: dict[str, Any] = {"activation_checkpointing": "none", "sequence_tile_size": 0}
TILED = {"activation_checkpointing": "full_offload", "sequence_tile_size": 256}
MEASURED = (("qwen3", PLAIN), ("qwen3", TILED), ("qwen3.5", TILED))


def errors() -> Iterator[tuple[str, float, float]]:
    """The model and settings, the bytes planned and the bytes measured."""
    with tempfile.TemporaryDirectory() as directory:
        for name, settings in MEASURED:
            path = Path(directory) / name
            MODELS[name].save_pretrained(path)
            config = PlanConfig(
                model=str(path), seq_lengths=(TOKENS,), device="cpu", compare_settings=False, **settings
            )
            planned = plan(config)[0].peak
            printed = python("bench/plan.py", str(path), str(TOKENS), json.dumps(settings))
            text = ", ".join(f"{key} {value}" for key, value in settings.items())
            yield f"{name}, {text}", planned, float(printed.split()[-1])


def measured(directory: str, tokens: int, config: TrainConfig) -> int:
    """Bytes at the peak of a step, code excluded. Needs Linux with glibc and a fresh process."""
    ctypes.CDLL(None).mallopt(
        _MMAP_THRESHOLD, 1 << 16
    )  # otherwise freed memory stays resident, in blocks of up to 32 MB
    _steps(transformers.AutoConfig.from_pretrained(directory, vocab_size=64), config, (16, 16))
    gc.collect()  # a prepared network holds a reference to itself
    ctypes.CDLL(None).malloc_trim(0)
    before = memory_usage.resident_bytes("VmRSS")
    _steps(transformers.AutoConfig.from_pretrained(directory), config, (16, tokens))
    return memory_usage.peak_bytes() - before


def _steps(shape: Any, config: TrainConfig, lengths: tuple[int, ...]) -> None:
    """Two micro-batches of one trace per step; the peak is that of the last step."""
    network = transformers.AutoModelForCausalLM.from_config(shape, attn_implementation="sdpa").train()
    network = prepare(network, config, on_gpu=False)
    NoiseScale(network.parameters())
    cls, options = optimizer_cls_and_kwargs(config)
    optimizer = cls(network.parameters(), **options)
    for tokens in lengths:
        ctypes.CDLL(None).malloc_trim(0)
        memory_usage.start_peak()
        for _ in range(2):
            _micro_batch(network, tokens)
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _micro_batch(network: Any, tokens: int) -> None:
    inputs = {"input_ids": torch.randint(64, (1, tokens)), "row_S": torch.arange(tokens)}
    label_ids_SK = torch.randint(64, (tokens, 1))
    network(inputs, label_ids_SK, torch.ones(tokens, 1), torch.full((tokens,), 1 / tokens))["loss"].backward()


def main() -> None:
    if len(sys.argv) == 1:
        for what, planned, actual in errors():
            error = 100 * (planned / actual - 1)
            print(f"{what}: planned {planned / GB:.3f} GB, measured {actual / GB:.3f}, {error:+.1f} %")
        return
    directory, tokens, settings = sys.argv[1:]
    print(measured(directory, int(tokens), TrainConfig(**json.loads(settings))))


if __name__ == "__main__":
    main()
