"""Time and memory of the summary of a probe: ``python bench/summary.py ROWS`` prints seconds and bytes.

The shards are as the probe writes them, list columns included, and read from the page cache.

Shape legend: N positions, G traces of a shard.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from ssdfast.probing.position_classes import POSITION_CLASSES
from ssdfast.probing.summary import summarize
from ssdfast.sharded_table import ShardedTable, ShardMetadata

TRACE_SOURCES = ("baseline", "trained")
SHARD = 32_768
TRACE = 1_024
DISTINCT = 16  # shards; the others are links to them, which cost their reader as much
OF_MODEL = (
    "lse", "entropy", "token_logprob", "top_mass", "tail_mass", "support_entropy", "token_rank", "nucleus_size",
    "support_size", "top1_logprob",
)  # fmt: skip
OF_PAIR = (
    "kl_base_trained", "kl_trained_base", "js", "tv", "logratio_var", "ssd_cov", "ssd_var", "ssd_alignment",
    "support_overlap", "trained_logprob_at_base_top1", "base_kept_mass", "trained_kept_mass",
    *(f"{model}_ce_{term}" for model in ("base", "trained") for term in ("compression", "reshaping", "alignment")),
)  # fmt: skip
SCALARS = (*(side + name for side in ("base_", "trained_") for name in OF_MODEL), *OF_PAIR)
COUNTS = ("token_rank", "nucleus_size", "support_size", "support_overlap")
LISTS = {
    **{side + name: width for side in ("base_", "trained_") for name, width in
       {"top_ids": 20, "top_logprobs": 20, "class_mass": 5, "lse_T": 5}.items()},
    "trained_logprobs_at_base_top": 20, "base_logprobs_at_trained_top": 20,
}  # fmt: skip


def measure(rows: int) -> tuple[float, int]:
    """Seconds of the summary of so many synthetic positions, and bytes of its process at its peak, Python included."""
    from memory import python  # brings torch, which the other process is to do without

    with TemporaryDirectory() as directory:
        write(Path(directory), rows)
        seconds, peak = python("bench/summary.py", directory).split()
    return float(seconds), int(peak)


def write(directory: Path, rows: int) -> None:
    """Shards with `rows` positions of traces of about a thousand."""
    full, rest = divmod(rows, SHARD)
    table = ShardedTable(str(directory))
    for index in range(min(full, DISTINCT)):
        table.write(index, positions(SHARD, index), ShardMetadata(""))
    for index in range(DISTINCT, full):
        os.link(directory / f"shard-{index % DISTINCT:05d}.parquet", directory / f"shard-{index:05d}.parquet")
    if rest:
        table.write(full, positions(rest, full), ShardMetadata(""))


def positions(n: int, seed: int) -> pa.Table:
    """A shard with n positions of random values."""
    rng = np.random.default_rng(seed)
    traces = max(1, n // TRACE)
    cuts = np.sort(rng.integers(0, n, traces - 1))
    trace_N = np.repeat(np.arange(traces, dtype=np.int32), np.diff(cuts, prepend=0, append=n))
    source_G = rng.integers(0, len(TRACE_SOURCES), traces).astype(np.int32)
    ids = [f"{seed}-{g}#0" for g in range(traces)]

    def values(name: str, width: int = 1) -> np.ndarray:
        if name.endswith(COUNTS) or name.endswith("ids"):
            return rng.integers(0, 40_000, n * width, dtype=np.int32)
        return rng.random(n * width, np.float32) - (1 if "logprob" in name else 0)

    columns = {
        "trace_id": pa.DictionaryArray.from_arrays(trace_N, ids),
        "problem_id": pa.DictionaryArray.from_arrays(trace_N, ids),
        "trace_source": pa.DictionaryArray.from_arrays(source_G[trace_N], list(TRACE_SOURCES)),
        "position": pa.array(np.arange(n, dtype=np.int32)),
        "token_id": pa.array(rng.integers(0, 40_000, n, dtype=np.int32)),
        "position_class": pa.DictionaryArray.from_arrays(
            rng.integers(0, len(POSITION_CLASSES), n, dtype=np.int8), list(POSITION_CLASSES)
        ),
        "top1_changed": pa.array(rng.random(n) < 0.1),
        "self_correction": pa.array(rng.random(n) < 0.02),
    }
    columns |= {name: pa.array(values(name)) for name in SCALARS}
    for name, width in LISTS.items():
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(values(name, width)), width)
    return pa.table(columns)


def alone(directory: Path) -> tuple[float, int]:
    """Seconds of the summary of the shards in a directory, and this process's peak memory in bytes. Linux."""
    begin = time.perf_counter()
    summarize(ShardedTable(str(directory)).shards(), TRACE_SOURCES, 0)
    seconds = time.perf_counter() - begin
    lines = Path("/proc/self/status").read_text().splitlines()
    return seconds, next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


if __name__ == "__main__":
    print(*(measure(int(sys.argv[1])) if sys.argv[1].isdecimal() else alone(Path(sys.argv[1]))))
