"""A training step on a GPU beside its plan: ``python bench/training_step.py [--seq-lengths 32768 49152]``.

The model has Qwen3-4B's shape and random weights; the step is that of ``ssdfast train`` with the settings of the plan:
float32 AdamW, activation checkpointing with inputs on the host, tiles of 2,048 tokens, soft labels of 20 tokens. Each
length is one trace, in two micro-batches, since the first finds no gradients. Writes peak memory, time, tokens per
second and MFU of each length. A rehearsal takes a small model on the CPU.
"""

from __future__ import annotations

import argparse
import gc
import time
from typing import Any

import torch
import transformers
from common import DEVICE, ON_GPU, REHEARSAL, record

from ssdfast.config import PlanConfig, TrainConfig
from ssdfast.training.diagnostics import NoiseScale
from ssdfast.training.optimizers import optimizer_cls_and_kwargs
from ssdfast.training.planning.known_models import text_config
from ssdfast.training.planning.plan import plan
from ssdfast.training.prepare_model import attn_implementation, prepare
from ssdfast.training.step_log import peak_flops

LENGTHS = (64, 96) if REHEARSAL else (32_768, 49_152)
LABELS = 20
WARM_UP = 16 if REHEARSAL else 4_096  # tokens of the step that loads and compiles code
SETTINGS: dict[str, Any] = {"activation_checkpointing": "full_offload", "sequence_tile_size": 32 if REHEARSAL else 2048}
SMALL: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "num_hidden_layers": 2, "tie_word_embeddings": True,
}  # fmt: skip


class Training:
    """A network and its optimizer."""

    def __init__(self, shape: Any) -> None:
        self.config = TrainConfig(**SETTINGS)
        attention = attn_implementation(self.config, ON_GPU, shape)
        with torch.device(DEVICE):
            network = transformers.AutoModelForCausalLM.from_config(
                shape, attn_implementation=attention, dtype=torch.float32
            )
        self.attention = attention
        self.network = prepare(network.train(), self.config, on_gpu=ON_GPU)
        self.vocabulary = shape.vocab_size
        NoiseScale(self.network.parameters())
        cls, options = optimizer_cls_and_kwargs(self.config)
        self.optimizer = cls(self.network.parameters(), **options)

    def step(self, tokens: int, micro_batches: int = 2) -> None:
        for _ in range(micro_batches):
            self._micro_batch(tokens, 1 / (micro_batches * tokens))
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _micro_batch(self, tokens: int, weight: float) -> None:
        ids = torch.randint(self.vocabulary, (1, tokens), device=DEVICE)
        inputs = {"input_ids": ids, "row_S": torch.arange(tokens, device=DEVICE)}
        label_ids_SK = torch.randint(self.vocabulary, (tokens, LABELS), device=DEVICE)
        probs_SK = torch.full((tokens, LABELS), 1 / LABELS, device=DEVICE)
        weight_S = torch.full((tokens,), weight, device=DEVICE)
        self.network(inputs, label_ids_SK, probs_SK, weight_S)["loss"].backward()


def measured(training: Training, shape: Any, tokens: int) -> dict[str, Any]:
    """Time and memory of one step of two traces of this length."""
    gc.collect()
    if ON_GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    training.step(tokens)
    if ON_GPU:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - begin
    weights = sum(p.numel() for p in training.network.parameters())
    useful = 6 * weights * 2 * tokens
    # Causal attention: half of S² pairs, two products, forward once and backward twice.
    width = shape.num_attention_heads * shape.head_dim
    attention = 3 * 2 * 2 * tokens**2 // 2 * width * shape.num_hidden_layers * 2
    row: dict[str, Any] = {
        "tokens": tokens, "micro_batches": 2, "attention": training.attention, "weights": weights,
        "seconds_per_step": seconds, "tokens_per_second": 2 * tokens / seconds,
    }  # fmt: skip
    if ON_GPU:
        free, total = torch.cuda.mem_get_info()
        row |= {
            "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
            "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
            "device_used_bytes": total - free,
        }
    if (peak := peak_flops()) is not None:
        row |= {"mfu": useful / seconds / peak, "mfu_with_attention": (useful + attention) / seconds / peak}
    return row


def planned(tokens: int) -> float:
    """Bytes at the peak by the plan, on a GPU."""
    config = PlanConfig(
        model="qwen3-4b", seq_lengths=(tokens,), labels_per_position=LABELS, compare_settings=False, **SETTINGS
    )
    return plan(config)[0].peak


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seq-lengths", type=int, nargs="+", default=LENGTHS)
    args = parser.parse_args()
    shape = transformers.Qwen3Config(**SMALL) if REHEARSAL else text_config("qwen3-4b")
    training = Training(shape)
    training.step(WARM_UP)
    rows = []
    for tokens in args.seq_lengths:
        try:
            row = measured(training, shape, tokens)
        except torch.OutOfMemoryError as error:
            row = {"tokens": tokens, "left_out": str(error).splitlines()[0]}
        rows.append(row)
        print({key: round(x, 4) if isinstance(x, float) else x for key, x in row.items()}, flush=True)
        record("training-step", rows)  # each time, and before the plans: this process may be ended
    for row in rows:
        row["planned_peak_bytes"] = planned(row["tokens"])
        if "peak_allocated_bytes" in row:
            row["plan_error"] = row["planned_peak_bytes"] / row["peak_allocated_bytes"] - 1
            print(
                f"{row['tokens']:,} tokens: planned {row['planned_peak_bytes'] / 1e9:.1f} GB, {row['plan_error']:+.1%}"
            )
    print(f"written to {record('training-step', rows)}")


if __name__ == "__main__":
    main()
