"""The trace table: prompts, sampled tokens, and how they were sampled. Parquet, one row per trace.

Token ids are authoritative; `text` is for people. Columns beyond the schema are copied unchanged; one of them, a
boolean `correct`, is the grade of the answer. Shards have the schema version and the version of ssdfast in their
Parquet metadata, as JSON under the key ``ssdfast``. Parquet files of other programs with these columns can be read as
well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .messages import one_line
from .run_dir import atomic, parquet_metadata
from .selected_shard import ROWS_AT_ONCE, open_shard

SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("sample", pa.int32()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("completion_ids", pa.list_(pa.int32())),
        # "stop": the model ended it; "length": truncated at the maximum; "loop": stopped because it looped;
        # "abort", "error": not finished, `note` has the reason
        ("finish_reason", pa.string()),
        ("seed", pa.int64()),
        ("engine", pa.string()),
        ("temperature", pa.float64()),
        ("top_k", pa.int32()),
        ("top_p", pa.float64()),
        ("min_p", pa.float64()),
        ("presence_penalty", pa.float64()),
        ("loop_at", pa.int32()),  # number of tokens up to the end of a detected loop, null for none
        ("source", pa.string()),  # of the problem
        ("difficulty", pa.string()),  # of the problem
        # The most likely tokens at each step, [tokens, K], and their log-probabilities (nats) before penalty,
        # temperature and truncation; null where top_logprobs is 0.
        ("top_ids", pa.list_(pa.list_(pa.int32()))),
        ("top_logprobs", pa.list_(pa.list_(pa.float32()))),
        ("text", pa.string()),
        ("note", pa.string()),
    ]
)
UNFINISHED = ("abort", "error")
MARK = ".unfinished"
"""The file beside the traces of a run from its first trace until each of its requests was tried."""
REQUIRED = ("problem_id", "sample", "prompt_ids", "completion_ids")
OPTIONAL = ("correct", "finish_reason")


@dataclass(frozen=True)
class Trace:
    """One prompt and one completion, as token ids (int32)."""

    trace_id: str
    problem_id: str
    prompt_ids: np.ndarray
    completion_ids: np.ndarray
    file: Path
    correct: bool | None = None

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)

    def __str__(self) -> str:
        return f"{self.file}, trace {self.trace_id}"


def shard_path(directory: Path, index: int) -> Path:
    return directory / f"shard-{index:05d}.parquet"


def write_shard(directory: Path, index: int, table: pa.Table) -> Path:
    """Write `table` as shard `index` of `directory`, whole or not at all. Raises ValueError for a missing column."""
    path = shard_path(directory, index)
    table = with_metadata(_conform(table, path, REQUIRED))
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return path


def replace(path: Path, table: pa.Table) -> None:
    """Write `table` in the place of a shard, whole or not at all."""
    with atomic(path) as temporary:
        pq.write_table(with_metadata(table), temporary, compression="zstd")


def with_metadata(table: pa.Table) -> pa.Table:
    """The table with the schema version and the version of ssdfast in its metadata."""
    return table.replace_schema_metadata({**(table.schema.metadata or {}), **parquet_metadata()})


def traces_path(path: Path) -> Path:
    """The directory of traces inside a run; any other path is returned unchanged."""
    return path / "traces" if (path / "traces").is_dir() else path


def files(path: Path) -> list[Path]:
    """The Parquet files of a source, sorted by name: the file itself, or those of a run or of a directory.

    Raises ValueError for none, and for a run that is not finished.
    """
    path = traces_path(path)
    if path.is_dir():
        _check_finished(path, path.glob)
    return shards(path)


def files_below(path: Path) -> list[Path]:
    """As `files`; a directory that has no Parquet file itself counts with all that are below it."""
    below = traces_path(path)
    if not below.is_dir():
        return files(below)
    _check_finished(below, below.rglob)
    return sorted(below.glob("*.parquet")) or sorted(below.rglob("*.parquet")) or files(below)


def shards(path: Path) -> list[Path]:
    """The Parquet files of a source, finished or not. Raises ValueError for none."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"there are no traces at {path}: name a Parquet file or a directory of them")
    parquet_files = sorted(path.glob("*.parquet"))
    if not parquet_files:
        raise ValueError(f"the directory {path} holds no .parquet file: name a directory of traces")
    return parquet_files


def _check_finished(directory: Path, glob: Callable[[str], Iterator[Path]]) -> None:
    """Raises ValueError for a run of sampling that was stopped, or that another process works on."""
    if mark := next((mark for pattern in (MARK, ".journal-*") for mark in glob(pattern)), None):
        raise ValueError(
            f"{mark.parent} is a run that is running or was stopped: finish it with the command that began it, for the"
            f" missing traces are the long ones, or remove {mark.name} there to use the traces that it has"
        )


def read(path: Path) -> Iterator[Trace]:
    """The finished traces of a source, in order, a few in memory at a time. Raises ValueError as `rows`."""
    return (trace for trace, _ in rows(path, ()))


def rows(
    path: Path, optional: Sequence[str], failed: Counter[str] | None = None
) -> Iterator[tuple[Trace, dict[str, pa.Scalar]]]:
    """The finished traces of a source, in order, a few in memory at a time, each with the optional columns that its
    file has.

    failed: counts the traces that are left out because they failed, by finish reason.
    Raises ValueError as `files`, for a file that is no complete Parquet file or no trace table, and for an empty prompt
    or a duplicate trace.
    """
    seen: set[str] = set()
    for file in files(path):
        for table in tables(file, REQUIRED, tuple(dict.fromkeys((*OPTIONAL, *optional)))):
            for i in range(len(table)):
                row = {name: table[name][i] for name in table.column_names}
                if "finish_reason" in row and (reason := row["finish_reason"].as_py()) in UNFINISHED:
                    if failed is not None:
                        failed[reason] += 1
                    continue
                trace = Trace(
                    f"{row['problem_id'].as_py()}#{row['sample'].as_py()}",
                    row["problem_id"].as_py(),
                    row["prompt_ids"].values.to_numpy(zero_copy_only=False),
                    row["completion_ids"].values.to_numpy(zero_copy_only=False),
                    file,
                    row["correct"].as_py() if "correct" in row else None,
                )
                if not len(trace.prompt_ids):
                    raise ValueError(f"{trace}: the prompt is empty, so nothing predicts the first token")
                if trace.trace_id in seen:
                    raise ValueError(f"{trace} occurs twice: problem_id and sample together must be unique in {path}")
                seen.add(trace.trace_id)
                yield trace, {name: row[name] for name in optional if name in row}


def tables(file: Path, required: Sequence[str], optional: Sequence[str]) -> Iterator[pa.Table]:
    """The required columns of a file and the optional ones that it has, a few rows at a time, in the types of SCHEMA.

    Raises ValueError for a file that is no complete Parquet file or lacks a column.
    """
    try:
        with open_shard(file) as shard:
            names = shard.schema_arrow.names
            _check_columns(names, file, required)
            columns = [*required, *(name for name in optional if name in names)]
            for batch in shard.iter_batches(ROWS_AT_ONCE, columns=columns):
                yield _conform(pa.Table.from_batches([batch]), file, required)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{file} is not a complete Parquet file ({one_line(error)}): write it again") from None


def _check_columns(names: list[str], path: Path, required: Sequence[str]) -> None:
    if missing := [name for name in required if name not in names]:
        present = ", ".join(names) or "none"
        raise ValueError(f"{path} is not a trace table: it lacks {', '.join(missing)} (its columns: {present})")


def _conform(table: pa.Table, path: Path, required: Sequence[str]) -> pa.Table:
    _check_columns(table.column_names, path, required)
    if "correct" in table.column_names:
        table = table.set_column(table.column_names.index("correct"), "correct", _grades(table["correct"], path))
    for field in SCHEMA:
        if field.name not in table.column_names:
            continue
        try:
            column = table[field.name].cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            kind = table.schema.field(field.name).type
            raise ValueError(f"{path}: column {field.name} must have the type {field.type}, not {kind}") from None
        if field.name in REQUIRED and (column.null_count or (pa.types.is_list(field.type) and _null_inside(column))):
            raise ValueError(f"{path}: column {field.name} has empty (null) values")
        table = table.set_column(table.column_names.index(field.name), field, column)
    return table


def _grades(column: pa.ChunkedArray, path: Path) -> pa.ChunkedArray:
    """The grades as booleans, from booleans, 0, 1 and null. Raises ValueError for any other value: a cast would take it
    for true."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    if pa.types.is_boolean(column.type) or column.null_count == len(column):
        return column if pa.types.is_boolean(column.type) else pa.chunked_array([pa.nulls(len(column), pa.bool_())])
    other = column.drop_null()
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
        other = other.filter(pc.invert(pc.or_(pc.equal(column, 0.0), pc.equal(column, 1.0)).drop_null()))
    if len(other):
        raise ValueError(
            f"{path}: column correct holds {other[0].as_py()!r:.40} ({kind}), and only true, false, 1, 0 and null are"
            " grades: make a score into a grade with a threshold, such as correct = score >= 0.5, and write null where"
            " the grade is unknown"
        )
    return pc.equal(column, 1.0)


def _null_inside(column: pa.ChunkedArray) -> bool:
    return bool(pc.list_flatten(column).null_count)
