"""Traces on disk: each one as soon as it is finished, and in the end Parquet parts, the same whatever happened between.

A finished trace goes to a journal (Arrow's messages, one batch a trace) before anything else is done with it; a
journal that a kill cut short is read up to there. A part holds the same requests in every run, in their order; it is
written once all of them are there, or with what is there when the run ends, and its traces then leave the journals.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .. import run_dir
from ..traces import SCHEMA, UNFINISHED, append, part_path

Key = tuple[str, int]  # problem_id, sample

TRACES_PER_PART = 64
_SECONDS_BETWEEN_SYNCS = 5.0  # a kill loses nothing that was written; a power cut may lose this much


@dataclass
class _Journal:
    """One file of finished traces; `kept` are those that are in no part yet."""

    path: Path
    schema: pa.Schema = SCHEMA
    kept: set[Key] = field(default_factory=set)

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """(place in the file, one trace), up to the end or to where the file was cut."""
        with self.path.open("rb") as file:
            try:
                schema = pa.ipc.read_schema(pa.ipc.read_message(file))
                while True:
                    place = file.tell()
                    yield place, pa.ipc.read_record_batch(pa.ipc.read_message(file), schema)
            except (pa.ArrowInvalid, EOFError, OSError):
                return

    def read(self, place: int) -> pa.RecordBatch:
        with self.path.open("rb") as file:
            file.seek(place)
            return pa.ipc.read_record_batch(pa.ipc.read_message(file), self.schema)


class TraceStore:
    """The traces of a run, in `directory`. keys: of all requests, in order.

    Raises ValueError where the directory holds a trace that is none of them.
    """

    def __init__(self, directory: Path, keys: Sequence[Key]) -> None:
        self.directory, self.keys = directory, list(keys)
        run_dir.sweep(directory)
        self.place_of = {key: place for place, key in enumerate(self.keys)}
        self.reasons: dict[Key, str] = {}
        """how each request that was tried has ended"""
        self._in_part: set[Key] = set()
        self._in_journal: dict[Key, tuple[_Journal, int]] = {}
        self._writing: _Journal | None = None
        self._synced = 0.0
        self._read_parts()
        self._read_journals()

    @property
    def todo(self) -> list[int]:
        """Places of the requests that have no finished trace."""
        return [i for i, key in enumerate(self.keys) if not self._finished(key)]

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.reasons.values())

    def add(self, batch: pa.RecordBatch) -> None:
        """Keep one trace, a batch of one row in SCHEMA. It is safe when this returns."""
        key = _key(batch)
        if self._writing is None:
            self._open_journal()
        assert self._writing is not None
        place = self._file.tell()
        self._file.write(batch.serialize())
        self._file.flush()
        if time.monotonic() - self._synced > _SECONDS_BETWEEN_SYNCS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()
        self._writing.kept.add(key)
        self._in_journal[key] = self._writing, place
        self._in_part.discard(key)
        self.reasons[key] = batch["finish_reason"][0].as_py()
        part = self.place_of[key] // TRACES_PER_PART
        if all(map(self._finished, self._keys_of(part))):
            self._write_part(part)

    def close(self) -> None:
        """Put everything into parts, those with gaps too."""
        for part in sorted({self.place_of[key] // TRACES_PER_PART for key in self._in_journal}):
            self._write_part(part)
        self._close_journal()

    def _finished(self, key: Key) -> bool:
        return self.reasons.get(key, "error") not in UNFINISHED

    def _keys_of(self, part: int) -> list[Key]:
        return self.keys[part * TRACES_PER_PART : (part + 1) * TRACES_PER_PART]

    def _read_parts(self) -> None:
        for path in sorted(self.directory.glob("part-*.parquet")):
            table = pq.read_table(path, columns=["problem_id", "sample", "finish_reason"])
            for problem_id, sample, reason in zip(*(column.to_pylist() for column in table.columns), strict=True):
                key = problem_id, sample
                if key not in self.place_of:
                    raise ValueError(
                        f"{path} holds a trace of {problem_id} (sample {sample}), which is not asked for: the problems"
                        " have changed; choose another --out, or --overwrite it"
                    )
                self._in_part.add(key)
                self.reasons[key] = reason

    def _read_journals(self) -> None:
        for path in sorted(self.directory.glob(".journal-*")):
            journal = _Journal(path)
            for place, batch in journal.batches():
                journal.schema = batch.schema
                key = _key(batch)
                if key in self.place_of and not self._finished(key):
                    self._forget(key)
                    self._in_part.discard(key)
                    self._in_journal[key] = journal, place
                    journal.kept.add(key)
                    self.reasons[key] = batch["finish_reason"][0].as_py()
            if not journal.kept:
                path.unlink()

    def _open_journal(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        taken = [int(path.name.removeprefix(".journal-")) for path in self.directory.glob(".journal-*")]
        self._writing = _Journal(self.directory / f".journal-{max(taken, default=0) + 1:06d}")
        self._file = self._writing.path.open("xb")
        self._file.write(SCHEMA.serialize())
        self._synced = 0.0

    def _close_journal(self) -> None:
        if self._writing is None:
            return
        journal, self._writing = self._writing, None
        self._file.close()
        if not journal.kept:
            journal.path.unlink(missing_ok=True)

    def _forget(self, key: Key) -> None:
        if key in self._in_journal:
            journal, _ = self._in_journal.pop(key)
            journal.kept.discard(key)
            if not journal.kept and journal is not self._writing:
                journal.path.unlink(missing_ok=True)

    def _write_part(self, part: int) -> None:
        keys = self._keys_of(part)
        path = part_path(self.directory, part)
        tables = [pq.read_table(path)] if any(key in self._in_part for key in keys) else []
        journalled = [self._in_journal[key] for key in keys if key in self._in_journal]
        tables += [pa.Table.from_batches([journal.read(place)]) for journal, place in journalled]
        table = pa.concat_tables(tables, promote_options="permissive")
        found = {key: row for row, key in enumerate(_keys(table))}  # the later one of two: it was tried again
        append(self.directory, part, table.take([found[key] for key in keys if key in found]))
        for key in keys:
            self._forget(key)
            if key in found:
                self._in_part.add(key)
        if self._writing is not None and not self._writing.kept:
            self._close_journal()


def _keys(table: pa.Table) -> Iterator[Key]:
    return zip(table["problem_id"].to_pylist(), table["sample"].to_pylist(), strict=True)


def _key(batch: pa.RecordBatch) -> Key:
    return batch["problem_id"][0].as_py(), batch["sample"][0].as_py()
