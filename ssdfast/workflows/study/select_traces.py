"""The traces that an arm trains on: graded, then all of them, the correct ones, or resampled to other lengths.

They are selected in an index, a narrow table with a row per trace, and written as shards that name them, so that no
token is copied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ... import traces
from ...selected_shard import held_rows, open_shard, write_selected
from ...traces import UNFINISHED

INDEX = pa.schema(
    [
        ("problem_id", pa.string()),
        ("sample", pa.int32()),
        ("seed", pa.int64()),
        ("finish_reason", pa.string()),
        ("difficulty", pa.string()),
        ("correct", pa.bool_()),  # null where the trace has no grade
        ("length", pa.int64()),  # of the completion, in tokens
        ("file", pa.string()),  # that holds the trace
        ("source_row", pa.int64()),  # in the file
        ("source_sample", pa.int32()),  # its `sample` in the file
    ]
)
_NEAR_FRACTION = 0.02
"""The fraction of the traces from which the one that replaces a trace of similar length is drawn."""


def index(directory: Path, samples: Path | None = None) -> pa.Table:
    """The finished traces of a directory, or of those below it, as INDEX.

    samples: samples.parquet of the evaluation that graded them; without one, grades are those that the traces have.
    """
    graded = None if samples is None else _grades(samples)
    table = pa.concat_tables([_index_of_file(file) for file in traces.files_below(directory)])
    table = table.filter(pc.invert(pc.is_in(table["finish_reason"], pa.array(UNFINISHED))))
    if graded is None:
        return table
    keys = zip(table["problem_id"].to_pylist(), table["sample"].to_pylist(), strict=True)
    return _with_column(table, "correct", [graded.get(key) for key in keys])


def _grades(samples: Path) -> dict[tuple[str, int], bool]:
    """Whether each sample is correct, by problem and number."""
    columns = pq.read_table(samples.absolute(), columns=["problem_id", "sample", "grade"]).to_pydict()
    return {(problem, sample): grade == "correct" for problem, sample, grade in zip(*columns.values(), strict=True)}


def _index_of_file(file: Path) -> pa.Table:
    with open_shard(file) as shard:
        names = [name for name in INDEX.names if name in shard.schema_arrow.names]
        table = shard.read([*names, "completion_ids"])
    source, held = held_rows(file)
    columns = {name: table[name] for name in names} | {name: held[name] for name in held.column_names}
    columns |= {
        "length": pc.list_value_length(table["completion_ids"]),
        "file": pa.array([str(source)] * len(table)),
    }
    return pa.table(
        [columns.get(field.name, pa.nulls(len(table), field.type)).cast(field.type) for field in INDEX], schema=INDEX
    )


def _with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), INDEX.field(name), pa.array(values, INDEX.field(name).type))


def with_grades(table: pa.Table, graded: pa.Table) -> pa.Table:
    """The traces with the grades of the traces that they are, by their seeds: a resampled trace has another number."""
    correct = dict(zip(graded["seed"].to_pylist(), graded["correct"].to_pylist(), strict=True))
    return _with_column(table, "correct", [correct.get(seed) for seed in table["seed"].to_pylist()])


def without_truncated(table: pa.Table) -> pa.Table:
    """The traces that the model ended itself."""
    return table.filter(pc.equal(table["finish_reason"], "stop"))


def only_correct(table: pa.Table) -> pa.Table:
    """The traces that are known to be correct."""
    return table.filter(pc.fill_null(table["correct"], False))


def match_lengths(table: pa.Table, target: pa.Table, seed: int) -> pa.Table:
    """As many traces of `table` as `target` has, with the distribution of lengths of `target`.

    Each trace of `target` is replaced by one drawn, with replacement, from the traces nearest in length: 2 % of the
    traces, at least 3. A trace that is drawn again becomes another sample of its problem. They stay in the order of
    `table`.
    """
    if not len(table):
        return table
    own = table["length"].to_numpy()
    order = np.argsort(own, kind="stable")
    near = min(len(own), max(3, round(_NEAR_FRACTION * len(own))))
    rng = np.random.default_rng(seed)
    lengths = target["length"].to_numpy()
    first = np.clip(np.searchsorted(own[order], lengths) - near // 2, 0, len(own) - near)
    matched = table.take(np.sort(order[first + rng.integers(0, near, len(lengths))]))
    count = Counter[str]()
    samples = []
    for problem in matched["problem_id"].to_pylist():
        samples.append(count[problem])
        count[problem] += 1
    return _with_column(matched, "sample", samples)


def subsample(table: pa.Table, count: int, seed: int) -> pa.Table:
    """`count` traces drawn at random, in their order; 0 takes all."""
    if not count or len(table) <= count:
        return table
    return table.take(np.sort(np.random.default_rng(seed).permutation(len(table))[:count]))


def write(table: pa.Table, directory: Path) -> None:
    """Write the traces of an index as a directory of traces, a shard for each file that holds them.

    Raises ValueError for an empty table.
    """
    if not len(table):
        raise ValueError(f"no trace is left for {directory.parent.name}: sample more, or use another filter")
    for shard, (file, rows) in enumerate(_by_file(table)):
        write_selected(traces.shard_path(directory, shard), file, rows)


def _by_file(table: pa.Table) -> Iterator[tuple[Path, pa.Table]]:
    """The rows of each file in the order of the table, as long as they ascend."""
    files = table["file"].combine_chunks().dictionary_encode()
    code, row = files.indices.to_numpy(), table["source_row"].to_numpy()
    starts = np.flatnonzero(np.concatenate([[True], (code[1:] != code[:-1]) | (row[1:] < row[:-1])]))
    for start, end in zip(starts, [*starts[1:], len(table)], strict=True):
        yield Path(files[int(start)].as_py()), table.slice(start, end - start)


def describe(table: pa.Table) -> dict[str, Any]:
    """The distribution of traces as training describes its filters, with median length and fraction correct."""
    from ...training.filters import trace_distribution

    lengths = table["length"].to_numpy()
    columns = (table[name].to_pylist() for name in ("finish_reason", "difficulty", "correct"))
    return {
        **trace_distribution(lengths.tolist(), *columns),
        "median_length": float(np.median(lengths)) if len(lengths) else None,
        "correct_fraction": _correct_fraction(table),
    }


def _correct_fraction(table: pa.Table) -> float | None:
    """Over the graded traces; None without any."""
    grades = [grade for grade in table["correct"].to_pylist() if grade is not None]
    return sum(grades) / len(grades) if grades else None
