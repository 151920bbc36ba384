"""The parts of a probe's table: Parquet files in a directory or on any file system that fsspec knows.

A part appears whole or not at all, and carries the fingerprint of the work it was made from.

Shape legend: N rows.
"""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from .run_dir import atomic, sweep

_KEY = b"ssdfast"


@dataclass(frozen=True)
class Notes:
    """What a part says about itself."""

    fingerprint: str
    failed: tuple[dict[str, str], ...] = ()
    """label, trace_id and reason of each trace that a model failed on"""


@dataclass(frozen=True)
class Parts:
    """The parts under `root`, a directory or a URL such as ``s3://bucket/probe``."""

    root: str
    _fs: Any = field(init=False, repr=False, compare=False)
    _path: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        fs, path = fsspec.core.url_to_fs(self.root)
        object.__setattr__(self, "_fs", fs)
        object.__setattr__(self, "_path", path)

    def write(self, index: int, table: pa.Table, notes: Notes) -> None:
        """Write a part. Raises OSError that says what is left to do where the disk is full."""
        said = json.dumps({"fingerprint": notes.fingerprint, "failed": notes.failed})
        table = table.replace_schema_metadata({_KEY: said})
        if isinstance(self._fs, LocalFileSystem):
            with atomic(Path(self._file(index))) as temporary:
                _write(table, temporary)
        else:
            self._upload(index, table)

    def sweep(self) -> None:
        """Remove what a killed run left half written."""
        if isinstance(self._fs, LocalFileSystem):
            sweep(Path(self._path))

    def notes(self, index: int) -> Notes | None:
        """What part `index` says of itself, None where there is none. Raises ValueError for one cut short."""
        file = self._file(index)
        if not self._fs.exists(file):
            return None
        try:
            with self._fs.open(file, "rb") as source:
                said = json.loads(pq.read_schema(source).metadata[_KEY])
            return Notes(said["fingerprint"], tuple(said["failed"]))
        except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file} is no whole part of a probe ({' '.join(str(error).split())})") from None

    def remove(self, index: int) -> None:
        self._fs.rm_file(self._file(index))

    def clear(self) -> None:
        """Remove all parts."""
        for file in self.files():
            self._fs.rm_file(file)

    def files(self) -> list[str]:
        """Paths of all parts, in order."""
        return sorted(self._fs.glob(f"{self._path}/part-*.parquet"))

    def opened(self) -> Iterator[pq.ParquetFile]:
        """All parts in order, each closed when the next is asked for."""
        for file in self.files():
            with self.open(file) as part:
                yield part

    @contextmanager
    def open(self, file: str) -> Iterator[pq.ParquetFile]:
        """One of `files`."""
        with self._fs.open(file, "rb") as source:
            yield pq.ParquetFile(source)

    def read(self, file: str, columns: list[str], filters: list[tuple[str, str, Any]]) -> pa.Table:
        """Some columns of the rows that pass all of (column, operator, value), of one of `files`."""
        return pq.read_table(file, columns=columns, filters=filters, filesystem=self._fs)

    def _file(self, index: int) -> str:
        return f"{self._path}/part-{index:05d}.parquet"

    def _upload(self, index: int, table: pa.Table) -> None:
        """By way of another name, for a file system on which a file that is being written can be seen."""
        temporary = f"{self._path}/.part-{index:05d}.{uuid.uuid4().hex}.tmp"
        self._fs.makedirs(self._path, exist_ok=True)
        try:
            self._fs.pipe_file(temporary, encoded(table))
            self._fs.mv(temporary, self._file(index))
        finally:
            if self._fs.exists(temporary):
                self._fs.rm_file(temporary)


def encoded(table: pa.Table) -> bytes:
    """A part's file, as `Parts.write` makes it."""
    buffer = io.BytesIO()
    _write(table, buffer)
    return buffer.getvalue()


def trace_starts(table: pa.Table | pa.RecordBatch) -> np.ndarray:
    """The rows at which traces begin, from the dictionary columns label and trace_id."""
    changes_N = np.ones(len(table), bool)
    changes_N[1:] = False
    for name in ("label", "trace_id"):
        column = table[name]
        code_N = (column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column).indices.to_numpy()
        changes_N[1:] |= code_N[1:] != code_N[:-1]
    return np.flatnonzero(changes_N)


def _write(table: pa.Table, where: Any) -> None:
    """Floats with their bytes apart: signs and exponents repeat, and the file is a third smaller."""
    leaves = {_leaf(column): _values(column.type) for column in table.schema}
    floats = [name for name, values in leaves.items() if pa.types.is_floating(values)]
    pq.write_table(
        table,
        where,
        compression="zstd",
        compression_level=3,
        use_dictionary=[name for name in leaves if name not in floats],
        column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT"),
    )


def _leaf(column: pa.Field) -> str:
    """What Parquet calls a column."""
    return f"{column.name}.list.element" if pa.types.is_fixed_size_list(column.type) else column.name


def _values(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_fixed_size_list(kind) else kind
