"""A shard of selected traces: a narrow table that names traces of another file, with their grades.

Prompts, tokens and text stay in the file that the traces were sampled to, whose path, relative to the shard, is in the
shard's Parquet metadata. Directories can be moved together, and not apart.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .joined_shard import Shard
from .messages import one_line
from .run_dir import PARQUET_KEY, atomic, parquet_metadata

SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("sample", pa.int32()),
        ("correct", pa.bool_()),  # null where the trace has no grade
        ("source_row", pa.int64()),  # in the file that holds the trace, ascending
        ("source_sample", pa.int32()),  # its `sample` there: a trace that is selected twice is two samples here
    ]
)
OWN = ("problem_id", "sample", "correct")
"""The columns that a selection has itself; the others are those of the file that holds the traces."""
_KEYS = ("problem_id", "sample")
_PLACE = ("source_row", "source_sample")
ROWS_AT_ONCE = 16  # traces of 48k tokens are 200 kB each, and 8 MB with 20 top log-probabilities of every token


def write_selected(path: Path, source: Path, table: pa.Table) -> None:
    """Write a shard that selects traces of `source`, whole or not at all. table: has the columns of SCHEMA."""
    relative = os.path.relpath(source.resolve(), path.parent.resolve())
    table = table.select(SCHEMA.names).cast(SCHEMA).replace_schema_metadata(parquet_metadata(source=relative))
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def source_of(file: Path) -> Path | None:
    """The file that holds the traces of a shard, None for a shard that holds them itself.

    Raises ValueError for a file that is not complete, or that names no other.
    """
    with _open(file) as own:
        return _source(file, own.schema_arrow)


def with_sources(files: Iterable[Path]) -> list[Path]:
    """The files of traces and those that hold the traces which they select."""
    own = list(files)
    return list(dict.fromkeys([*own, *filter(None, map(source_of, own))]))


def held_rows(file: Path) -> tuple[Path, pa.Table]:
    """The file that holds the traces of a file, and where: `source_row` and `source_sample`."""
    if source := source_of(file):
        return source, pq.read_table(file.absolute(), columns=list(_PLACE), partitioning=None)
    sample = pq.read_table(file.absolute(), columns=["sample"], partitioning=None)["sample"]
    return file, pa.table([range(len(sample)), sample], schema=pa.schema([SCHEMA.field(name) for name in _PLACE]))


@contextmanager
def open_shard(file: Path) -> Iterator[Shard]:
    """Open a file of traces; of selected ones with the columns of the file that holds them.

    Raises ValueError for a file that is not complete, or that selects from one that is missing or selects too.
    """
    with _open(file) as own:
        source = _source(file, own.schema_arrow)
        if source is None:
            yield own
            return
        if not source.exists():
            raise ValueError(
                f"{source} is missing, which holds the traces that {file} selects: put it back, or select them again"
            )
        with _open(source) as holder:
            if _source(source, holder.schema_arrow):
                raise ValueError(f"{file} selects from {source}, which holds no traces itself: select them again")
            yield SelectedShard(own, holder, (file, source))


def _open(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file.absolute())
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{file} is not a complete Parquet file ({one_line(error)}): write it again") from None


class SelectedShard:
    """A shard of selected traces, with the columns of the file that holds them."""

    def __init__(self, own: pq.ParquetFile, holder: pq.ParquetFile, names: tuple[Path, Path]) -> None:
        """names: of both files, for messages."""
        self._own, self._holder, self._names = own.read(), holder, names
        self.metadata = own.metadata
        held = [field for field in holder.schema_arrow if field.name not in OWN]
        self.schema_arrow = pa.schema([*(SCHEMA.field(name) for name in OWN), *held])

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """These columns, or all. Raises ValueError as `iter_batches`."""
        columns = self.schema_arrow.names if columns is None else columns
        return pa.Table.from_batches(self.iter_batches(ROWS_AT_ONCE, columns), self._fields(columns))

    def iter_batches(self, batch_size: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """These columns, in batches of the traces that are among `batch_size` rows of the file that holds them.

        Raises ValueError where that file does not hold the traces that were selected.
        """
        held = dict.fromkeys([*_KEYS, *(name for name in columns if name not in OWN)])
        rows = self._own["source_row"].to_numpy()
        if (rows[:1] < 0).any() or (rows[1:] < rows[:-1]).any():
            raise ValueError(f"{self._names[0]} selects rows that do not ascend from 0: select the traces again")
        start = done = 0
        for batch in self._holder.iter_batches(batch_size, columns=list(held)):
            end = int(rows.searchsorted(start + len(batch)))
            if end > done:
                own = self._own.slice(done, end - done)
                there = pa.Table.from_batches([batch]).take(pa.array(rows[done:end] - start))
                self._check(own, there)
                values = [(own if name in OWN else there)[name].combine_chunks() for name in columns]
                yield pa.RecordBatch.from_arrays(values, schema=self._fields(columns))
            start, done = start + len(batch), end
        if done < len(rows):
            self._refuse()

    def _fields(self, columns: Sequence[str]) -> pa.Schema:
        return pa.schema([self.schema_arrow.field(name) for name in columns])

    def _check(self, own: pa.Table, there: pa.Table) -> None:
        for name, key in zip(("problem_id", "source_sample"), _KEYS, strict=True):
            if not pc.all(pc.equal(own[name], there[key].cast(own[name].type))).as_py():
                self._refuse()

    def _refuse(self) -> None:
        raise ValueError(
            f"{self._names[1]} was written again and no longer holds the traces that {self._names[0]} selects: select"
            " them again"
        )


def _source(file: Path, schema: pa.Schema) -> Path | None:
    if "source_row" not in schema.names or "completion_ids" in schema.names:
        return None
    try:
        relative = json.loads(schema.metadata[PARQUET_KEY])["source"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{file} selects traces and does not say of which file: select them again") from None
    return Path(os.path.normpath(file.resolve().parent / relative))
