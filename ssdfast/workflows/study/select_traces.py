"""The traces that an arm trains on: graded, then all of them, the correct ones, or resampled to other lengths."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ... import traces
from ...traces import UNFINISHED

_NEAR_FRACTION = 0.02
"""The fraction of the traces from which the one that replaces a trace of similar length is drawn."""


def read(directory: Path) -> pa.Table:
    """The finished traces of a directory, or of those below it, with a column `correct`, null where there is none."""
    tables = [pq.read_table(file.absolute(), partitioning=None) for file in traces.files_below(directory)]
    table = pa.concat_tables(tables, promote_options="permissive")
    table = table.filter(pc.invert(pc.is_in(table["finish_reason"], pa.array(UNFINISHED))))
    if "correct" not in table.column_names:
        return table.append_column("correct", pa.nulls(len(table), pa.bool_()))
    return table


def with_grades(table: pa.Table, graded: pa.Table) -> pa.Table:
    """The traces with the grades of the traces that they are, by their seeds: a resampled trace has another number."""
    correct = dict(zip(graded["seed"].to_pylist(), graded["correct"].to_pylist(), strict=True))
    column = pa.array([correct.get(seed) for seed in table["seed"].to_pylist()], pa.bool_())
    return table.drop_columns(["correct"]).append_column("correct", column)


def without_truncated(table: pa.Table) -> pa.Table:
    """The traces that the model ended itself."""
    return table.filter(pc.equal(table["finish_reason"], "stop"))


def only_correct(table: pa.Table) -> pa.Table:
    """The traces that are known to be correct."""
    return table.filter(pc.fill_null(table["correct"], False))


def match_lengths(table: pa.Table, target: pa.Table, seed: int) -> pa.Table:
    """As many traces of `table` as `target` has, with the distribution of lengths of `target`.

    Each trace of `target` is replaced by one drawn, with replacement, from the traces nearest in length: 2 % of the
    traces, at least 3. A trace that is drawn again becomes another sample of its problem.
    """
    if not len(table):
        return table
    own = _lengths(table)
    order = np.argsort(own, kind="stable")
    near = min(len(own), max(3, round(_NEAR_FRACTION * len(own))))
    rng = np.random.default_rng(seed)
    lengths = _lengths(target)
    first = np.clip(np.searchsorted(own[order], lengths) - near // 2, 0, len(own) - near)
    matched = table.take(order[first + rng.integers(0, near, len(lengths))])
    count = Counter[str]()
    samples = []
    for problem in matched["problem_id"].to_pylist():
        samples.append(count[problem])
        count[problem] += 1
    column = matched.column_names.index("sample")
    return matched.set_column(column, "sample", pa.array(samples, matched.schema.field(column).type))


def subsample(table: pa.Table, count: int, seed: int) -> pa.Table:
    """`count` traces drawn at random, in their order; 0 takes all."""
    if not count or len(table) <= count:
        return table
    return table.take(np.sort(np.random.default_rng(seed).permutation(len(table))[:count]))


def write(table: pa.Table, directory: Path) -> None:
    """Write the table as a directory of traces. Raises ValueError for an empty table."""
    if not len(table):
        raise ValueError(f"no trace is left for {directory.parent.name}: sample more, or use another filter")
    traces.write_shard(directory, 0, table)


def describe(table: pa.Table) -> dict[str, Any]:
    """The distribution of traces as training describes its filters, with median length and fraction correct."""
    from ...training.filters import trace_distribution

    lengths = _lengths(table)
    columns = (table[name].to_pylist() for name in ("finish_reason", "difficulty", "correct"))
    return {
        **trace_distribution(lengths.tolist(), *columns),
        "median_length": float(np.median(lengths)) if len(lengths) else None,
        "correct_fraction": _correct_fraction(table),
    }


def _lengths(table: pa.Table) -> np.ndarray:
    lengths: np.ndarray = pc.list_value_length(table["completion_ids"]).to_numpy().astype(np.int64)
    return lengths


def _correct_fraction(table: pa.Table) -> float | None:
    """Over the graded traces; None without any."""
    grades = [grade for grade in table["correct"].to_pylist() if grade is not None]
    return sum(grades) / len(grades) if grades else None
