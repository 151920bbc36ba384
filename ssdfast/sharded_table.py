"""The table of positions: Parquet files, its shards, in a directory or on any file system that fsspec knows.

A shard appears whole or not at all. Its schema metadata holds the fingerprint of the work it was made from. A path
without a scheme (``s3://``) is a local path, whatever characters it has, and shards are listed and matched by name:
neither a glob nor a chain of URLs is ever read into a path.

Shape legend: N rows.
"""

from __future__ import annotations

import io
import json
import os
import posixpath
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from .joined_shard import JoinedShard, Shard
from .messages import one_line
from .run_dir import PARQUET_KEY, atomic, parquet_metadata, sweep

_URL = re.compile(r"(?:[a-z][a-z0-9+.-]*::)*([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_OWN = ("fingerprint", "failed", "baseline", "schema_version", "ssdfast_version")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHARD = re.compile(r"shard-\d{5,}\.parquet")


class ForeignShard(ValueError):
    """A complete Parquet file has the name of a shard, and no probe wrote it."""


@dataclass(frozen=True)
class ShardMetadata:
    """What the schema metadata of a shard holds under the key ``ssdfast``, as JSON."""

    fingerprint: str
    failed: tuple[dict[str, str], ...] = ()
    """trace_source, trace_id and reason of each trace that a model failed on"""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """what a reader of the columns needs: token classes, temperatures, sampling parameters"""
    baseline: str = ""
    """the directory beside the run's that has the baseline's columns, by its name; empty where they are in the shard"""

    def to_parquet(self) -> dict[bytes, bytes]:
        own: dict[str, Any] = {"fingerprint": self.fingerprint, "failed": self.failed}
        own |= {"baseline": self.baseline} if self.baseline else {}
        return parquet_metadata(**{**self.columns, **own})


@dataclass(frozen=True)
class ShardedTable:
    """The shards in `root`, a directory or a URL such as ``s3://bucket/positions``."""

    root: str
    _fs: Any = field(init=False, repr=False, compare=False)
    _path: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises ValueError for a URL whose scheme is unknown or needs a package that is not installed."""
        fs, path = _file_system(self.root)
        object.__setattr__(self, "_fs", fs)
        object.__setattr__(self, "_path", path)

    @classmethod
    def from_run(cls, directory: Path, table_dir: str | None) -> ShardedTable:
        """The table of a run: in `table_dir`, a directory or a URL, or else in ``positions``."""
        return cls(os.path.expanduser(table_dir) if table_dir else str(directory.absolute() / "positions"))

    def write(self, index: int, table: pa.Table, metadata: ShardMetadata) -> None:
        """Write a shard. Raises OSError that says how to continue where the disk is full."""
        table = table.replace_schema_metadata(metadata.to_parquet())
        if isinstance(self._fs, LocalFileSystem):
            with atomic(Path(self._file(index))) as temporary:
                _write(table, temporary)
        else:
            self._upload(index, table)

    @property
    def run_name(self) -> str:
        """The name of the directory that `root` is in."""
        return posixpath.basename(posixpath.dirname(self._path))

    def sweep(self) -> None:
        """Remove the temporary files of a killed run."""
        if isinstance(self._fs, LocalFileSystem):
            sweep(Path(self._path))

    def metadata(self, index: int) -> ShardMetadata | None:
        """Of shard `index`, None where there is none. Raises ValueError for a truncated file, ForeignShard for one of
        another kind."""
        file = self._file(index)
        return self._metadata(file) if self._fs.exists(file) else None

    def _metadata(self, file: str) -> ShardMetadata:
        try:
            with self._fs.open(file, "rb") as source:
                metadata = pq.read_schema(source).metadata
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{file} is not a whole shard of a probe ({one_line(error)})") from None
        try:
            values = json.loads(metadata[PARQUET_KEY])
            columns = {name: value for name, value in values.items() if name not in _OWN}
            return ShardMetadata(values["fingerprint"], tuple(values["failed"]), columns, values.get("baseline", ""))
        except (KeyError, TypeError, ValueError):
            raise ForeignShard(
                f"{file} is not a whole shard of a probe but another table: choose another directory for the positions"
            ) from None

    def remove(self, index: int) -> None:
        self._fs.rm_file(self._file(index))

    def clear(self) -> None:
        """Remove all shards. Raises ForeignShard, with nothing removed, where another table has the name of a shard."""
        files = self.files()
        list(self.descriptions())
        for file in files:
            self._fs.rm_file(file)

    def descriptions(self) -> Iterator[ShardMetadata]:
        """The metadata of all shards that are whole. Raises ForeignShard for a file of another kind."""
        for file in self.files():
            try:
                yield self._metadata(file)
            except ForeignShard:
                raise
            except ValueError:  # truncated
                continue

    def files(self) -> list[str]:
        """Paths of all shards, in order."""
        try:
            paths = self._fs.ls(self._path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = (path.rstrip("/").rpartition("/")[2] for path in paths)
        return [f"{self._path}/{name}" for name in sorted(names) if _SHARD.fullmatch(name)]

    def shards(self) -> Iterator[Shard]:
        """All shards in order; each is closed when the next is requested."""
        for file in self.files():
            with self.open(file) as shard:
                yield shard

    @contextmanager
    def open(self, file: str) -> Iterator[Shard]:
        """Open one of `files`. A shard that shares the baseline's columns is joined with the baseline's.

        Raises ValueError where the baseline's shard is missing.
        """
        with self._fs.open(file, "rb") as source:
            own = pq.ParquetFile(source)
            name = baseline_name(own.schema_arrow)
            if not name:
                yield own
                return
            baseline = self.baseline_file(file, name)
            if not self._fs.exists(baseline):
                directory = posixpath.dirname(posixpath.dirname(baseline))
                raise ValueError(
                    f"{baseline} is missing, which has the baseline's columns of {file}: probe again with the same"
                    f" settings, or in a study delete {directory} and start the study again"
                )
            failed = {(trace["trace_source"], trace["trace_id"]) for trace in self._metadata(file).failed}
            self._metadata(baseline)  # names a file that is damaged
            with self._fs.open(baseline, "rb") as beside:
                yield JoinedShard(own, pq.ParquetFile(beside), failed, (file, baseline))

    def baseline_file(self, file: str, name: str) -> str:
        """The file of the baseline's columns of one of `files`. name: `ShardMetadata.baseline`."""
        if not is_run_name(name):
            raise ValueError(f"{file} names no directory beside its own but {name!r}: probe again with --overwrite")
        return f"{posixpath.dirname(posixpath.dirname(self._path))}/{name}/positions/{posixpath.basename(file)}"

    def read(self, file: str, columns: list[str], filters: list[tuple[str, str, Any]] | None) -> pa.Table:
        """Columns of one of `files`, of the rows that pass all filters (column, operator, value)."""
        with self.open(file) as shard:
            if isinstance(shard, JoinedShard):
                return shard.read(columns, filters)
        return pq.read_table(file, columns=columns, filters=filters, filesystem=self._fs, partitioning=None)

    def _file(self, index: int) -> str:
        return f"{self._path}/shard-{index:05d}.parquet"

    def _upload(self, index: int, table: pa.Table) -> None:
        """Write under a hidden name, then move: on some file systems others can see a file before it is complete."""
        temporary = f"{self._path}/.shard-{index:05d}.{uuid.uuid4().hex}.tmp"
        self._fs.makedirs(self._path, exist_ok=True)
        try:
            self._fs.pipe_file(temporary, encode(table))
            self._fs.mv(temporary, self._file(index))
        finally:
            if self._fs.exists(temporary):
                self._fs.rm_file(temporary)


def is_run_name(name: str) -> bool:
    """Whether a shard can name a directory beside its run's by this name."""
    return bool(_NAME.fullmatch(name))


def baseline_name(schema: pa.Schema) -> str:
    """`ShardMetadata.baseline` of a shard with this schema, empty for another table."""
    try:
        name = json.loads((schema.metadata or {})[PARQUET_KEY]).get("baseline", "")
    except (KeyError, ValueError, AttributeError):
        return ""
    return str(name)


def _file_system(root: str) -> tuple[Any, str]:
    """The file system of a directory or URL, and the path in it."""
    url = _URL.match(root)
    if not url:
        return LocalFileSystem(), os.path.abspath(root)
    try:
        fs, path = fsspec.core.url_to_fs(root)
    except ImportError as error:
        raise ValueError(f"{root} needs a package that is not installed: {one_line(error)}") from None
    except ValueError:
        known = "a directory, s3://BUCKET/PATH, gs://BUCKET/PATH or file:///PATH"
        raise ValueError(f"{root}: the scheme {url[1]!r} is unknown: name {known}") from None
    return fs, path.rstrip("/")


def encode(table: pa.Table) -> bytes:
    """The bytes of a shard, as `ShardedTable.write` makes them."""
    buffer = io.BytesIO()
    _write(table, buffer)
    return buffer.getvalue()


def trace_starts(table: pa.Table | pa.RecordBatch) -> np.ndarray:
    """The rows at which traces begin, from the dictionary columns trace_source and trace_id."""
    changes_N = np.ones(len(table), bool)
    changes_N[1:] = False
    for name in ("trace_source", "trace_id"):
        column = table[name]
        code_N = (column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column).indices.to_numpy()
        changes_N[1:] |= code_N[1:] != code_N[:-1]
    return np.flatnonzero(changes_N)


def _write(table: pa.Table, where: Any) -> None:
    """Store floats byte by byte (BYTE_STREAM_SPLIT): signs and exponents repeat, so files are a third smaller."""
    leaves = {_leaf_name(column): _value_type(column.type) for column in table.schema}
    floats = [name for name, kind in leaves.items() if pa.types.is_floating(kind)]
    pq.write_table(
        table,
        where,
        compression="zstd",
        compression_level=3,
        use_dictionary=[name for name in leaves if name not in floats],
        column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT"),
    )


def _leaf_name(column: pa.Field) -> str:
    """The name of a column in Parquet."""
    return f"{column.name}.list.element" if pa.types.is_fixed_size_list(column.type) else column.name


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_fixed_size_list(kind) else kind
