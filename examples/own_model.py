"""Probe models of your own: two checkpoints on disk, and traces of token ids that some other program sampled.

    python examples/own_model.py BASELINE TRAINED OUT

BASELINE and TRAINED are directories of safetensors with one tokenizer. The prompts and completions below are texts, for
brevity; traces of your own have the ids that were sampled.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import AutoTokenizer

import ssdfast as ssd

TEXTS = [("2 + 2 =", " 4"), ("3 + 4 =", " 7"), ("5 + 1 =", " 6")]


def main(baseline: str, trained: str, out: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(baseline)
    table = pa.table(
        {
            "problem_id": [f"sum-{i}" for i in range(len(TEXTS))],
            "sample": [0] * len(TEXTS),
            "prompt_ids": [tokenizer(prompt)["input_ids"] for prompt, _ in TEXTS],
            "completion_ids": [tokenizer(text, add_special_tokens=False)["input_ids"] for _, text in TEXTS],
            "correct": [True, True, True],
        }
    )
    traces = Path(out) / "own-traces"
    traces.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, traces / "traces.parquet")

    probe = ssd.probe(
        baseline=baseline,
        trained=trained,
        traces=traces,
        train_sampling={"temperature": 1.1, "top_k": 20, "top_p": 0.95},
        out=Path(out) / "probe",
    )
    print(probe.trace("sum-0#0").tokens())
    print(probe.summary().all.kl_trained_base.value, "nats per position")


if __name__ == "__main__":
    main(*sys.argv[1:])
