"""Which traces an arm learns from: of what was sampled, judged; right ones alone, or drawn to others' lengths."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ... import run_dir, traces
from ...traces import UNFINISHED
from ...training.filters import shape

_NEAR = 0.02
"""share of the traces that are near enough in length to stand for one"""


def judged(sampled: Path, verdicts: Path | None) -> pa.Table:
    """The finished traces of a directory, with a column `correct` from the table of verdicts: null where there is
    none."""
    table = pa.concat_tables([pq.read_table(file) for file in traces.files(sampled)])
    table = table.filter(pa.compute.invert(pa.compute.is_in(table["finish_reason"], pa.array(UNFINISHED))))
    if verdicts is None:
        return table.append_column("correct", pa.nulls(len(table), pa.bool_()))
    rows = pq.read_table(verdicts, columns=["problem_id", "sample", "verdict"]).to_pylist()
    right = {(row["problem_id"], row["sample"]): row["verdict"] == "correct" for row in rows}
    keys = zip(table["problem_id"].to_pylist(), table["sample"].to_pylist(), strict=True)
    return table.append_column("correct", pa.array([right.get(key) for key in keys], pa.bool_()))


def without_cut_off(table: pa.Table) -> pa.Table:
    """Those that the model ended itself."""
    return table.filter(pa.compute.equal(table["finish_reason"], "stop"))


def to_lengths_of(table: pa.Table, others: pa.Table, seed: int) -> pa.Table:
    """As many traces of `table` as `others` has, with its distribution of lengths.

    For each of the others one is drawn, with replacement, from the nearest in length: 2 % of the traces, 3 at least.
    A trace that is drawn again is another sample of its problem.
    """
    if not len(table):
        return table
    own = _lengths(table)
    order = np.argsort(own, kind="stable")
    near = min(len(own), max(3, round(_NEAR * len(own))))
    chance = np.random.default_rng(seed)
    wanted = _lengths(others)
    first = np.clip(np.searchsorted(own[order], wanted) - near // 2, 0, len(own) - near)
    taken = table.take(order[first + chance.integers(0, near, len(wanted))])
    count = Counter[str]()
    samples = []
    for problem in taken["problem_id"].to_pylist():
        samples.append(count[problem])
        count[problem] += 1
    place = taken.column_names.index("sample")
    return taken.set_column(place, "sample", pa.array(samples, taken.schema.field(place).type))


def some(table: pa.Table, count: int, seed: int) -> pa.Table:
    """`count` traces of problems drawn at random, in their order; 0 takes all."""
    if not count or len(table) <= count:
        return table
    return table.take(np.sort(np.random.default_rng(seed).permutation(len(table))[:count]))


def write(table: pa.Table, directory: Path) -> None:
    """As a directory of traces. Raises ValueError for no trace."""
    if not len(table):
        raise ValueError(f"no trace is left for {directory.parent.name}: sample more, or with another filter")
    with run_dir.atomic(directory / "part-00000.parquet") as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _lengths(table: pa.Table) -> np.ndarray:
    lengths: np.ndarray = pa.compute.list_value_length(table["completion_ids"]).to_numpy().astype(np.int64)
    return lengths


def right_share(table: pa.Table) -> float | None:
    """Of the traces that were judged."""
    known = [one for one in table["correct"].to_pylist() if one is not None]
    return sum(known) / len(known) if known else None


def described(table: pa.Table) -> dict[str, Any]:
    """The distribution of some traces, as training describes what its filters take, and their median length and share
    of right ones; None where there is none."""
    lengths = _lengths(table)
    columns = (table[name].to_pylist() for name in ("finish_reason", "difficulty", "correct"))
    return {
        **shape(lengths.tolist(), *columns),
        "median_length": float(np.median(lengths)) if len(lengths) else None,
        "right": right_share(table),
    }
