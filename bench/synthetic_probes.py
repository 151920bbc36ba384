"""Probes of synthetic trained models beside one baseline, as a study writes them; for study_memory.py."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ssdfast.probing.table import of_baseline, of_trained
from ssdfast.sharded_table import ShardedTable, ShardMetadata
from tests.attribution import synthetic

TRACES_OF_A_SHARD, TOKENS, VOCABULARY = 8, 4000, 1024


def write_probes(directory: Path, count: int, shards: int) -> list[Path]:
    """The directories of `count` probes of `shards` shards; those that are there are kept.

    All shards of a model hold the same numbers under other names of traces and problems.
    """
    paths = [directory / f"model-{i}" for i in range(count)]
    missing = [(i, path) for i, path in enumerate(paths) if not (path / "summary.json").exists()]
    if missing:
        base = synthetic.baseline(TRACES_OF_A_SHARD, TOKENS, per_problem=1, vocabulary=VOCABULARY)
    for i, path in missing:
        model = synthetic.Planted(strength=0.1 + 0.01 * i if i % 4 else 0.0, seed=i)
        pair = synthetic.write(path / "pair", base, model.logits(base))
        table = pq.read_table(pair / "positions").replace_schema_metadata(None)
        for shard in range(shards):
            renamed = _renamed(table, f"{shard}-")
            baseline = ShardedTable.from_run(directory / "baseline", None)
            baseline.write(shard, of_baseline(renamed), ShardMetadata(""))
            own = ShardMetadata("", baseline=baseline.run_name)
            ShardedTable.from_run(path, None).write(shard, of_trained(renamed), own)
        (pair / "summary.json").rename(path / "summary.json")
    return paths


def _renamed(table: pa.Table, prefix: str) -> pa.Table:
    for name in ("trace_id", "problem_id"):
        column = table[name].combine_chunks()
        names = [prefix + value for value in column.dictionary.to_pylist()]
        column = pa.DictionaryArray.from_arrays(column.indices, pa.array(names))
        table = table.set_column(table.column_names.index(name), name, column)
    return table
