"""A shard of a trained model beside its baseline's, read as one: of a probe of several models against one baseline.

The baseline's columns are stored once. The shard of a trained model has its own columns, those of the pair, and the
keys of its rows. Both hold the same rows in the same order, but for traces that the trained model alone failed on,
which its metadata names. Of ``base_logprobs_at_trained_top`` it stores only what is not among the baseline's own top
log-probabilities; the rest is null there and is filled in here.

Shape legend: N rows, K entries of the top lists.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

KEYS = ("trace_source", "trace_id", "position")
"""the columns that both tables have"""
AT_TRAINED_TOP = "base_logprobs_at_trained_top"
_FILLED_FROM = ("trained_top_ids", "base_top_ids", "base_top_logprobs")


class Shard(Protocol):
    """What readers of positions use of `pyarrow.parquet.ParquetFile`."""

    metadata: pq.FileMetaData
    schema_arrow: pa.Schema

    def read(self, columns: Sequence[str] | None = None) -> pa.Table: ...

    def iter_batches(self, batch_size: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]: ...


class JoinedShard:
    """A shard of a trained model and the baseline's.

    Columns of the baseline are read from its shard, all others from the trained model's.
    """

    def __init__(
        self, own: pq.ParquetFile, baseline: pq.ParquetFile, failed: Collection[tuple[str, str]], names: tuple[str, str]
    ) -> None:
        """failed: trace_source and trace_id of the traces that the trained model's shard lacks. names: of both files,
        for messages."""
        self._own, self._baseline, self._failed, self._names = own, baseline, failed, names
        self._checked = False
        self.metadata = own.metadata
        shared = [field for field in baseline.schema_arrow if field.name not in own.schema_arrow.names]
        self.schema_arrow = pa.schema([*shared, *own.schema_arrow], own.schema_arrow.metadata)

    def read(
        self, columns: Sequence[str] | None = None, filters: Sequence[tuple[str, str, Any]] | None = None
    ) -> pa.Table:
        """These columns, or all, of the rows that pass all filters (column, operator, value).

        Raises ValueError where the two shards do not hold the same rows.
        """
        columns = self.schema_arrow.names if columns is None else list(columns)
        fills = AT_TRAINED_TOP in columns
        filtered = [name for name, *_ in filters or ()]
        needed = dict.fromkeys(
            [*columns, *filtered, *(_FILLED_FROM if fills else ()), *(() if self._checked else KEYS)]
        )
        table = self._own.read([name for name in needed if name in self._own.schema_arrow.names])
        shared = [name for name in needed if name not in table.column_names]
        if shared or not self._checked:
            beside = self._rows_of_baseline([*shared, *(() if self._checked else KEYS)])
            if not self._checked:
                self._check(table, beside)
            for name in shared:
                table = table.append_column(beside.schema.field(name), beside[name])
        if filters:
            table = table.filter(pq.filters_to_expression(filters))
        return (with_known(table) if fills else table).select(columns)

    def iter_batches(self, batch_size: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """These columns in batches of at most `batch_size` rows; raises as `read`. The columns of a whole shard are in
        memory."""
        yield from self.read(columns).combine_chunks().to_batches(batch_size)

    def _rows_of_baseline(self, columns: list[str]) -> pa.Table:
        if not self._failed:
            return self._baseline.read(columns)
        table = self._baseline.read([*dict.fromkeys([*columns, *KEYS[:2]])])
        keys = zip(*(table[name].to_pylist() for name in KEYS[:2]), strict=True)
        return table.filter(pa.array([key not in self._failed for key in keys], pa.bool_())).select(columns)

    def _check(self, own: pa.Table, beside: pa.Table) -> None:
        same = len(own) == len(beside) and all(
            pc.all(pc.equal(*(table[name].cast(self._plain(name)) for table in (own, beside)))).as_py() in (True, None)
            for name in KEYS
        )
        if not same:
            raise ValueError(
                f"{self._names[0]} and {self._names[1]} do not hold the same positions, so one of them was changed or"
                " belongs to another probe: delete the summary.json beside the first and both shards, and probe again"
            )
        self._checked = True

    def _plain(self, name: str) -> pa.DataType:
        kind = self._own.schema_arrow.field(name).type
        return kind.value_type if pa.types.is_dictionary(kind) else kind


def without_known(table: pa.Table) -> pa.Table:
    """A table whose AT_TRAINED_TOP is null where the baseline's own top list has the value. `with_known` is the
    inverse, to the last bit."""
    values_NK, *lists = (_list_values(table[name]) for name in (AT_TRAINED_TOP, *_FILLED_FROM))
    known_NK, same_NK = _look_up(*lists)
    same_NK &= known_NK.view(np.uint32) == values_NK.view(np.uint32)
    return _with_values(table, pa.array(values_NK.reshape(-1), mask=same_NK.reshape(-1)))


def with_known(table: pa.Table) -> pa.Table:
    """A table that `without_known` has thinned, whole again."""
    flat = table[AT_TRAINED_TOP].combine_chunks().flatten()
    known_NK, _ = _look_up(*(_list_values(table[name]) for name in _FILLED_FROM))
    null = flat.is_null().to_numpy(zero_copy_only=False)
    return _with_values(table, pa.array(np.where(null, known_NK.reshape(-1), flat.fill_null(0).to_numpy())))


def _list_values(column: pa.ChunkedArray) -> np.ndarray:
    """[N, K] of a column of lists of one length."""
    array = column.combine_chunks()
    return array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), -1 if len(array) else 0)


def _with_values(table: pa.Table, flat: pa.Array) -> pa.Table:
    place, kind = table.column_names.index(AT_TRAINED_TOP), table.schema.field(AT_TRAINED_TOP)
    width = len(flat) // max(len(table), 1)
    whole = pa.FixedSizeListArray.from_arrays(flat, width) if width else pa.array([], kind.type)
    return table.set_column(place, kind, whole.cast(kind.type))


def _look_up(ids_NK: np.ndarray, base_ids_NK: np.ndarray, base_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the baseline's log-probability of each id, 0 where it is not in its list; whether it is)."""
    known_NK, there_NK = np.zeros_like(base_NK), np.zeros(ids_NK.shape, bool)
    for k in range(base_ids_NK.shape[1]):
        match_NK = (ids_NK == base_ids_NK[:, k : k + 1]) & ~there_NK
        known_NK[match_NK] = np.broadcast_to(base_NK[:, k : k + 1], ids_NK.shape)[match_NK]
        there_NK |= match_NK
    return known_NK, there_NK
