"""Traces on disk: each is written as soon as it is finished. The final Parquet shards do not depend on interruptions.

A finished trace goes to a journal (Arrow messages, one batch per trace) first; a journal that a kill truncated is read
up to there. A shard holds the same requests in every run, in their order. It is written once all of them are finished,
or with the finished ones when the run ends; its traces then leave the journals. A mark tells other stages that requests
are still untried.

A run that is continued with more samples per problem has other shards: its traces go through a journal into them. With
a larger maximum length, the traces that were truncated at the former one are sampled again.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .. import run_dir
from ..traces import MARK, SCHEMA, UNFINISHED, shard_path, write_shard

Key = tuple[str, int]  # problem_id, sample

TRACES_PER_SHARD = 64
_JOURNAL = re.compile(r"\.journal-\d+")
_READ = ("problem_id", "sample", "finish_reason", "completion_ids")
_SHORT = "short"
"""The reason, in memory alone, of a trace that was truncated at a former, smaller maximum length."""
_SECONDS_BETWEEN_SYNCS = 5.0  # a kill loses nothing that was written; a power cut may lose this much


@dataclass
class _Journal:
    """One file of finished traces; `pending` are those that are in no shard yet."""

    path: Path
    schema: pa.Schema = SCHEMA
    pending: set[Key] = field(default_factory=set)

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """(offset in the file, one trace), up to the end or to where the file was truncated."""
        with self.path.open("rb") as file:
            try:
                schema = pa.ipc.read_schema(pa.ipc.read_message(file))
                while True:
                    offset = file.tell()
                    yield offset, pa.ipc.read_record_batch(pa.ipc.read_message(file), schema)
            except (pa.ArrowInvalid, EOFError, OSError):
                return

    def read(self, offset: int) -> pa.RecordBatch:
        with self.path.open("rb") as file:
            file.seek(offset)
            return pa.ipc.read_record_batch(pa.ipc.read_message(file), self.schema)


class TraceStore:
    """The traces of a run, in `directory`. keys: those of all requests, in order. max_tokens: the maximum length of each
    completion; a trace that was truncated before is not finished.

    Raises ValueError where the directory holds a trace of another request.
    """

    def __init__(self, directory: Path, keys: Sequence[Key], max_tokens: Sequence[int] | None = None) -> None:
        self.directory, self.keys = directory, list(keys)
        self.max_tokens = dict(zip(keys, max_tokens, strict=True)) if max_tokens else {}
        run_dir.sweep(directory)
        self.index = {key: i for i, key in enumerate(self.keys)}
        self.reasons: dict[Key, str] = {}
        """The finish reason of each request that was tried."""
        self._in_shard: set[Key] = set()
        self._in_journal: dict[Key, tuple[_Journal, int]] = {}
        self._writing: _Journal | None = None
        self._synced = 0.0
        misplaced = self._read_shards()
        self._read_journals()
        for path in misplaced:
            self._move_to_journal(path)

    @property
    def todo(self) -> list[int]:
        """Indices of the requests without a finished trace."""
        return [i for i, key in enumerate(self.keys) if not self._finished(key)]

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.reasons.values())

    def add(self, batch: pa.RecordBatch) -> None:
        """Write one trace, a batch of one row in SCHEMA. It is on disk when this returns."""
        key = _key(batch)
        if self._writing is None:
            self._mark()
            self._open_journal()
        assert self._writing is not None
        offset = self._file.tell()
        self._file.write(batch.serialize())
        self._file.flush()
        if time.monotonic() - self._synced > _SECONDS_BETWEEN_SYNCS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()
        # In this order: Ctrl-C between the two leaves no trace that `close` does not know of.
        self._in_journal[key] = self._writing, offset
        self._writing.pending.add(key)
        self._in_shard.discard(key)
        self.reasons[key] = batch["finish_reason"][0].as_py()
        shard = self.index[key] // TRACES_PER_SHARD
        if all(map(self._finished, self._shard_keys(shard))):
            self._write_shard(shard)

    def close(self) -> None:
        """Write everything to shards, including incomplete ones."""
        for shard in sorted({self.index[key] // TRACES_PER_SHARD for key in self._in_journal}):
            self._write_shard(shard)
        self._close_journal()
        if self.directory.is_dir():
            self._mark()

    def _mark(self) -> None:
        """Leave the mark of an unfinished run while a request was not tried, and remove it after the last."""
        mark = self.directory / MARK
        if all(self.reasons.get(key, _SHORT) != _SHORT for key in self.keys):
            mark.unlink(missing_ok=True)
        else:
            self.directory.mkdir(parents=True, exist_ok=True)
            mark.touch()

    def _finished(self, key: Key) -> bool:
        return self.reasons.get(key, _SHORT) not in (*UNFINISHED, _SHORT)

    def _shard_keys(self, shard: int) -> list[Key]:
        return self.keys[shard * TRACES_PER_SHARD : (shard + 1) * TRACES_PER_SHARD]

    def _read_shards(self) -> list[Path]:
        """Returns the shards that hold a trace of another shard's."""
        misplaced = []
        for path in sorted(self.directory.glob("shard-*.parquet")):
            table = pq.read_table(path.absolute(), columns=list(_READ), partitioning=None)
            for key, reason in zip(_keys(table), _reasons(table, self.max_tokens), strict=True):
                problem_id, sample = key
                if key not in self.index:
                    raise ValueError(
                        f"{path} holds a trace of {problem_id} (sample {sample}), which this run does not sample: the"
                        " problems have changed; choose another --out, or --overwrite it"
                    )
                self._in_shard.add(key)
                self.reasons[key] = reason
            if any(shard_path(self.directory, self.index[key] // TRACES_PER_SHARD) != path for key in _keys(table)):
                misplaced.append(path)
        return misplaced

    def _move_to_journal(self, path: Path) -> None:
        """Move the traces of a shard to a journal, from which they go to their own shards."""
        self._mark()
        table = pq.read_table(path.absolute(), partitioning=None)
        journal = _Journal(self._next_journal(), table.schema)
        with journal.path.open("xb") as file:
            file.write(table.schema.serialize())
            for row, key in enumerate(_keys(table)):
                if key in self._in_journal:  # it was tried again since
                    continue
                batch = table.slice(row, 1).combine_chunks().to_batches()[0]
                self._in_journal[key] = journal, file.tell()
                journal.pending.add(key)
                self._in_shard.discard(key)
                file.write(batch.serialize())
            file.flush()
            os.fsync(file.fileno())
        path.unlink()

    def _read_journals(self) -> None:
        for path in self._journals():
            journal = _Journal(path)
            for offset, batch in journal.batches():
                journal.schema = batch.schema
                key = _key(batch)
                if key in self.index and not self._finished(key):
                    (reason,) = _reasons(batch, self.max_tokens)
                    self._forget(key)
                    self._in_shard.discard(key)
                    self._in_journal[key] = journal, offset
                    journal.pending.add(key)
                    self.reasons[key] = reason
            if not journal.pending:
                path.unlink()

    def _journals(self) -> list[Path]:
        files = self.directory.iterdir() if self.directory.is_dir() else ()
        return sorted(file for file in files if _JOURNAL.fullmatch(file.name))

    def _next_journal(self) -> Path:
        self.directory.mkdir(parents=True, exist_ok=True)
        numbers = [int(path.name.removeprefix(".journal-")) for path in self._journals()]
        return self.directory / f".journal-{max(numbers, default=0) + 1:06d}"

    def _open_journal(self) -> None:
        self._writing = _Journal(self._next_journal())
        self._file = self._writing.path.open("xb")
        self._file.write(SCHEMA.serialize())
        self._synced = 0.0

    def _close_journal(self) -> None:
        if self._writing is None:
            return
        journal, self._writing = self._writing, None
        self._file.close()
        if not journal.pending:
            journal.path.unlink(missing_ok=True)

    def _forget(self, key: Key) -> None:
        if key in self._in_journal:
            journal, _ = self._in_journal.pop(key)
            journal.pending.discard(key)
            if not journal.pending and journal is not self._writing:
                journal.path.unlink(missing_ok=True)

    def _write_shard(self, shard: int) -> None:
        keys = self._shard_keys(shard)
        path = shard_path(self.directory, shard)
        tables = (
            [pq.read_table(path.absolute(), partitioning=None)] if any(key in self._in_shard for key in keys) else []
        )
        journaled = [self._in_journal[key] for key in keys if key in self._in_journal]
        tables += [pa.Table.from_batches([journal.read(offset)]) for journal, offset in journaled]
        table = pa.concat_tables(tables, promote_options="permissive")
        row_of = {key: row for row, key in enumerate(_keys(table))}  # the later of two rows: the request was retried
        write_shard(self.directory, shard, table.take([row_of[key] for key in keys if key in row_of]))
        for key in keys:
            self._forget(key)
            if key in row_of:
                self._in_shard.add(key)
        if self._writing is not None and not self._writing.pending:
            self._close_journal()


def _reasons(table: pa.Table | pa.RecordBatch, max_tokens: dict[Key, int]) -> list[str]:
    """The finish reasons; _SHORT for a completion that was truncated at a smaller maximum than today's."""
    reasons: list[str] = table["finish_reason"].to_pylist()
    lengths = pc.list_value_length(table["completion_ids"]).to_pylist()
    return [
        _SHORT if reason == "length" and length < max_tokens.get(key, 0) else reason
        for key, reason, length in zip(_keys(table), reasons, lengths, strict=True)
    ]


def _keys(table: pa.Table | pa.RecordBatch) -> Iterator[Key]:
    return zip(table["problem_id"].to_pylist(), table["sample"].to_pylist(), strict=True)


def _key(batch: pa.RecordBatch) -> Key:
    return batch["problem_id"][0].as_py(), batch["sample"][0].as_py()
