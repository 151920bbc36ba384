"""``sample``, ``train`` and ``probe`` on this GPU beside the same on its CPU: ``python bench/stages.py``.

A random model of the shape of Qwen3, small enough for a CPU, in float32. Both devices sample the same problems with the
same seeds; then both probe and train on the CPU's traces. Writes which traces are the same, how far each column of
the probe and each step's loss are apart, and each command's time. A rehearsal runs all of it twice on the CPU, where
nothing may differ. Exits 1 where the differences are more than rounding explains.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import transformers
from common import ON_GPU, REHEARSAL, ROOT, record

from ssdfast import traces
from tests import tiny

SHAPE: dict[str, Any] = {
    "vocab_size": 4096, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 512, "initializer_range": 0.12,
    "eos_token_id": 1, "bos_token_id": None, "tie_word_embeddings": True,
}  # fmt: skip
PROBLEMS, TOKENS = (4, 8) if REHEARSAL else (24, 48)
DEVICES = {"cpu": {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}, "gpu": {}}
SAME_TRACES = 0.9  # at least: a draw may fall between two tokens as close as rounding
LOSS_APART = 2e-2  # at most, relative: layers compute in bfloat16 on a GPU
# Of all values of a column, at most so many may be further apart than 1e-3 absolute plus relative.
VALUES_APART = 0.01


def make_inputs(home: Path) -> None:
    """Two models and some problems."""
    for name, shift in (("baseline", 0.0), ("trained", 0.01)):
        torch.manual_seed(0)
        model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SHAPE))
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(shift * torch.randn_like(weight))
        model.save_pretrained(home / name)
        tokenizer = tiny.tokenizer(size=SHAPE["vocab_size"])
        tokenizer.chat_template = "{{ messages[0]['content'] }}"
        tokenizer.save_pretrained(home / name)
    rows = [{"question": f"word{i} + word{3 * i} =", "answer": str(i)} for i in range(1, PROBLEMS + 1)]
    (home / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def commands(home: Path, device: str) -> Iterator[tuple[str, list[str]]]:
    baseline, trained, sampled = str(home / "baseline"), str(home / "trained"), str(home / "cpu" / "sample")
    out = home / device
    yield "sample", [
        "sample", "--model", baseline, "--problems.sources", str(home / "problems.jsonl"),
        "--max-new-tokens", str(TOKENS), "--top-logprobs", "20", "--dtype", "float32", "--out",
        str(out / "sample"),
    ]  # fmt: skip
    yield "probe", [
        "probe", "--baseline", baseline, "--trained", trained, "--traces", f"sampled={sampled}", "--dtype", "float32",
        "--out", str(out / "probe"),
    ]  # fmt: skip
    yield "train", [
        "train", "--model", baseline, "--traces", sampled, "--loss", "soft", "--batch-size", "4", "--num-train-epochs",
        "1", "--activation-checkpointing", "full", "--warmup-steps", "1", "--out", str(out / "train"),
    ]  # fmt: skip


def run(home: Path) -> dict[str, dict[str, float]]:
    """Each stage on both devices at once; seconds of each command, its start included.

    Raises RuntimeError with what a command printed if it fails.
    """
    seconds: dict[str, dict[str, float]] = {device: {} for device in DEVICES}
    for both in zip(*(commands(home, device) for device in DEVICES), strict=True):
        with ThreadPoolExecutor() as pool:
            times = pool.map(_run, DEVICES, both)
        for device, (name, _), elapsed in zip(DEVICES, both, times, strict=True):
            seconds[device][name] = elapsed
    return seconds


def _run(device: str, named: tuple[str, list[str]]) -> float:
    name, command = named
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "ssdfast", *command], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, **DEVICES[device], "TRITON_INTERPRET": "0"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{name} on the {device}:\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
    return time.perf_counter() - begin


def same_traces(home: Path) -> float:
    """The fraction of traces with the same tokens."""
    texts = []
    for device in DEVICES:
        every = traces.read(home / device / "sample" / "traces")
        texts.append({trace.trace_id: list(trace.completion_ids) for trace in every})
    assert texts[0].keys() == texts[1].keys(), "the devices sampled different problems"
    return float(np.mean([texts[0][key] == texts[1][key] for key in texts[0]]))


def columns_apart(home: Path) -> dict[str, dict[str, float]]:
    """Of each column of numbers: the fraction of values that are apart, and the largest difference."""
    tables = []
    for device in DEVICES:
        table = pq.ParquetDataset(sorted((home / device / "probe" / "positions").glob("*.parquet"))).read()
        keys = list(zip(table["trace_id"].to_pylist(), table["position"].to_pylist(), strict=True))
        tables.append(table.take(sorted(range(len(keys)), key=keys.__getitem__)))
    apart = {}
    for name in tables[0].column_names:
        try:
            x, y = (np.array(table[name].to_pylist(), dtype=float) for table in tables)
        except (TypeError, ValueError):
            assert tables[0][name].to_pylist() == tables[1][name].to_pylist(), name
            continue
        difference = np.where(np.isnan(x) & np.isnan(y), 0.0, np.abs(x - y))
        difference = np.where(x == y, 0.0, np.nan_to_num(difference, nan=np.inf))
        apart[name] = {
            "fraction": float(np.mean(difference > 1e-3 + 1e-3 * np.abs(y))),
            "largest": float(difference.max(initial=0)),
        }
    return apart


def losses_apart(home: Path) -> float:
    """The largest relative difference of a step's loss."""
    losses = []
    for device in DEVICES:
        lines = (home / device / "train" / "train" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        losses.append(np.array([json.loads(line)["loss"] for line in lines]))
    return float(np.max(np.abs(losses[0] / losses[1] - 1)))


def main() -> int:
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        make_inputs(home)
        seconds = run(home)
        row: dict[str, Any] = {
            "seconds": seconds, "same_traces": same_traces(home), "loss_apart": losses_apart(home),
            "columns_apart": columns_apart(home),
        }  # fmt: skip
    worst = max(row["columns_apart"], key=lambda name: row["columns_apart"][name]["fraction"])
    fraction = row["columns_apart"][worst]["fraction"]
    print(f"seconds {seconds}")
    print(f"same traces {row['same_traces']:.1%}, losses {row['loss_apart']:.1e} apart, ", end="")
    print(f"worst column {worst}: {fraction:.2%} of the values apart")
    print(f"written to {record('stages', [row])}")
    limits = (1.0, 0.0, 0.0) if not ON_GPU else (SAME_TRACES, LOSS_APART, VALUES_APART)
    return int(row["same_traces"] < limits[0] or row["loss_apart"] > limits[1] or fraction > limits[2])


if __name__ == "__main__":
    sys.exit(main())
