"""Peak memory of what a study does with its traces and probes: select traces, set a training up, attribute shifts.

    python bench/study_memory.py

2,000 synthetic traces of 4,000 tokens with their 20 most likely tokens, 0.95 GB: every trace as it is, the correct ones
alone, and the traces of a training with soft labels. Probes at 200 such traces, which is what a study takes of them:
of two arms with one seed, and of four with five. Each runs in a process of its own, whose imports are measured too.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import ROOT, record
from synthetic_probes import write_probes

from ssdfast import traces
from ssdfast.attribution.attribute import attribute
from ssdfast.config import TrainingRunConfig
from ssdfast.memory_usage import resident_bytes
from ssdfast.models import model_info
from ssdfast.sampling.trace_store import TRACES_PER_SHARD
from ssdfast.training.filters import read_training_examples
from ssdfast.workflows.study import select_traces
from ssdfast.workflows.study.demo import convert

HOME = ROOT / "runs" / "bench-study-memory"
TRACES, TOKENS, TOP, VOCABULARY = 2000, 4000, 20, 49_152
SAMPLES = HOME / "samples.parquet"


def write_traces() -> None:
    rng = np.random.default_rng(0)
    for start in range(0, TRACES, TRACES_PER_SHARD):
        count = min(TRACES_PER_SHARD, TRACES - start)
        ids = rng.integers(20, VOCABULARY, (count, TOKENS, TOP), dtype=np.int32)
        logprobs = np.sort(-rng.exponential(3, (count, TOKENS, TOP)).astype(np.float32), -1)[..., ::-1]
        lists = [
            pa.ListArray.from_arrays(
                np.arange(0, count * TOKENS + 1, TOKENS, dtype=np.int32),
                pa.ListArray.from_arrays(np.arange(0, ids.size + 1, TOP, dtype=np.int32), pa.array(values.ravel())),
            )
            for values in (ids, logprobs)
        ]
        columns = {
            "problem_id": [f"p{start + i}" for i in range(count)],
            "sample": pa.array([0] * count, pa.int32()),
            "prompt_ids": [[1] * 50] * count,
            "completion_ids": list(ids[:, :, 0]),
            "finish_reason": ["stop"] * count,
            "seed": range(start, start + count),
            "temperature": [1.1] * count,
            "top_k": pa.array([TOP] * count, pa.int32()),
            "top_p": [0.95] * count,
            "top_ids": lists[0],
            "top_logprobs": lists[1],
        }
        traces.write_shard(HOME / "traces", start // TRACES_PER_SHARD, pa.table(columns))
    grades = ["correct" if i % 3 else "incorrect" for i in range(TRACES)]
    pq.write_table(
        pa.table({"problem_id": [f"p{i}" for i in range(TRACES)], "sample": [0] * TRACES, "grade": grades}), SAMPLES
    )


def select_all() -> None:
    select_traces.write(select_traces.index(HOME), HOME / "all" / "traces")


def select_correct() -> None:
    select_traces.write(select_traces.only_correct(select_traces.index(HOME, SAMPLES)), HOME / "correct" / "traces")


def set_up_training() -> None:
    model = str(convert(HOME / "model"))
    config = TrainingRunConfig(model=model, traces=str(HOME / "traces"), loss="soft")
    examples, _ = read_training_examples(config, model_info(model))
    assert len(examples) == TRACES


def attribute_arms(arms: int, seeds: int) -> None:
    probes = iter(write_probes(HOME / "probes", arms * seeds, shards=25))
    names = ["control", *(f"arm-{i}" for i in range(1, arms))]
    attribute({name: [next(probes) for _ in range(seeds)] for name in names}, "control")


STEPS: dict[str, Callable[[], None]] = {
    "select every trace": select_all,
    "select the correct ones": select_correct,
    "set up a training": set_up_training,
    "attribute 2 probes": lambda: attribute_arms(2, 1),
    "attribute 20 probes": lambda: attribute_arms(4, 5),
}


def main() -> None:
    if len(sys.argv) > 1:
        STEPS[sys.argv[1]]()
        print(resident_bytes("VmHWM") / 1e9)  # where getrusage has the parent's peak too
        return
    convert(HOME / "model")
    if not SAMPLES.exists():
        write_traces()
    write_probes(HOME / "probes", 20, shards=25)
    rows = []
    for name in STEPS:
        for made in ("all", "correct"):
            shutil.rmtree(HOME / made, ignore_errors=True)
        command = [sys.executable, __file__, name]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        own = sum(file.stat().st_blocks * 512 for file in new_files())
        rows.append({"step": name, "peak_gb": float(printed.split()[-1]), "new_gb": own / 1e9})
        print(rows[-1])
    rows.append(
        {"step": "the traces", "disk_gb": sum(file.stat().st_size for file in (HOME / "traces").iterdir()) / 1e9}
    )
    print(rows[-1])
    record("study_memory", rows)


def new_files() -> list[Path]:
    return [file for name in ("all", "correct") for file in (HOME / name).rglob("*.parquet")]


if __name__ == "__main__":
    main()
