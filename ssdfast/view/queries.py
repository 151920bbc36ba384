"""Questions about the tables, answered by DuckDB over the Parquet files. Names are checked, values are parameters.

While the page is open, the columns of one value are copied to a database in a temporary directory, in which a sort of
millions of rows finds the rest of its rows at once; until that is done the Parquet files themselves are read.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from ..joined_shard import with_known
from ..results.base import check_columns
from ..schemas import read_vocabulary
from .find_tables import Table
from .joined import check_rows, one_row, rows_sql
from .values import (
    as_json,
    identifier,
    is_number,
    matching_ids,
    narrow,
    parse_value,
    probability,
    quote,
)

PAGE = 60
MAX_EXPORT = 1_000_000
BINS, CELLS = 40, (48, 32)
MAX_TOKENS = 20_000
_MEMORY = "900MB"
_THREADS = 2
_INDEX_FROM = 200_000
"""rows from which on the copy pays"""
_OPERATORS = {"=": "=", "!=": "IS DISTINCT FROM", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
TEXT = "text"
"""the token's text, of positions"""

Filter = tuple[str, str, str]


class Explorer:
    """The tables of a directory."""

    def __init__(self, tables: Sequence[Table], root: Path) -> None:
        self.tables = {table.name: table for table in tables}
        self.places = {name: place for place, name in enumerate(self.tables)}
        self._temporary = tempfile.TemporaryDirectory(prefix="ssdfast-view-")
        self._connection = duckdb.connect(str(Path(self._temporary.name) / "index.duckdb"))
        run = self._connection.execute
        run(f"SET threads = {_THREADS}")
        run(f"SET memory_limit = '{_MEMORY}'")
        run(f"SET temp_directory = {quote(self._temporary.name)}")
        run("SET preserve_insertion_order = true")
        beside = {str(file.parent) for table in tables for file in table.baseline}
        allowed = ", ".join(map(quote, [str(root.resolve()), self._temporary.name, *sorted(beside)]))
        run(f"SET allowed_directories = [{allowed}]")
        run("SET enable_external_access = false")
        self._numbers = {
            name: {str(file.resolve()): number for number, file in enumerate(table.files)}
            for name, table in self.tables.items()
        }
        self._vocabularies: dict[Path, dict[int, str]] = {}
        self._indexed: set[str] = set()
        for name, place in self.places.items():
            run(f"CREATE VIEW t{place} AS SELECT * FROM {rows_sql(self.tables[name], self._numbers[name])}")
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._index, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Remove the copy."""
        self._closed.set()
        self._connection.interrupt()
        self._thread.join()
        self._connection.close()
        self._temporary.cleanup()

    def wait(self) -> None:
        """Until the copy is complete."""
        self._thread.join()

    def _index(self) -> None:
        cursor = self._connection.cursor()
        for name, table in self.tables.items():
            if self._closed.is_set():
                return
            if self.count(name, ()) < _INDEX_FROM:
                continue
            place = self.places[name]
            columns = ", ".join(identifier(column) for column in table.scalars)
            try:
                cursor.execute(f"CREATE TABLE f{place} (filename VARCHAR, _file INTEGER)")
                cursor.executemany(f"INSERT INTO f{place} VALUES (?, ?)", list(self._numbers[name].items()))
                cursor.execute(
                    f"CREATE TABLE i{place} AS SELECT {columns}, file_row_number, _file FROM t{place}"
                    f" JOIN f{place} USING (filename)"
                )
            except duckdb.Error:  # closed, or no room: the Parquet files serve too
                return
            self._indexed.add(name)

    def describe(self) -> list[dict[str, Any]]:
        """Name, kind and columns of each table, with the number of rows.

        Raises ValueError where the baseline's columns of a table are those of other rows.
        """
        for name, table in self.tables.items():
            if table.baseline:
                check_rows(table, self.count(name, ()))
        return [
            {
                "name": table.name,
                "kind": table.kind,
                "rows": self.count(table.name, ()),
                "columns": [
                    {"name": name, "number": is_number(table.schema.field(name).type)} for name in table.scalars
                ],
                "text": table.kind == "positions" and table.vocabulary is not None,
                "copied": table.name in self._indexed,
            }
            for table in self.tables.values()
        ]

    def count(self, name: str, filters: Sequence[Filter]) -> int:
        """The number of rows that pass."""
        where, values = self._where(name, filters)
        return int(self._run(f"SELECT count(*) FROM {self._source(name)} {where}", values)[0][0])

    def rows(self, name: str, filters: Sequence[Filter], sort: str, offset: int) -> list[dict[str, Any]]:
        """A page of rows, in order of a column (from the largest with a leading -) or as they are stored."""
        table = self._table(name)
        where, values = self._where(name, filters)
        source, file = self._source(name), "_file" if name in self._indexed else "filename"
        columns = ", ".join(map(identifier, table.scalars))
        order = ""
        if sort:
            column = sort.removeprefix("-")
            self._check(table, [column])
            order = f"ORDER BY {identifier(column)} {'DESC' if sort[0] == '-' else 'ASC'} NULLS LAST"
        elif table.joined:  # a join keeps no order
            order = f"ORDER BY {file}, file_row_number"
        sql = (
            f"SELECT {columns}, {file}, file_row_number FROM {source} {where} {order} LIMIT {PAGE} OFFSET {int(offset)}"
        )
        entries = []
        for row in self._run(sql, values):
            *cells, where_file, row_number = row
            number = where_file if isinstance(where_file, int) else self._numbers[name][where_file]
            entry = {column: as_json(value) for column, value in zip(table.scalars, cells, strict=True)}
            entry["_row"] = f"{number}:{row_number}"
            entries.append(entry)
        if table.kind == "positions":
            texts = self._texts(table)
            for entry in entries:
                entry[TEXT] = texts.get(entry["token_id"], "")
        return entries

    def row(self, name: str, key: str) -> dict[str, Any]:
        """Every column of one row, lists of token ids as texts where there is a vocabulary."""
        table = self._table(name)
        number, _, row_number = key.partition(":")
        if not (number.isdecimal() and row_number.isdecimal() and int(number) < len(table.files)):
            raise ValueError(f"there is no row {key!r}")
        path = str(table.files[int(number)].resolve())
        if table.joined:
            entries = one_row(table, Path(path), int(row_number))
        else:
            rows = f"read_parquet({quote(path)}, file_row_number = true) WHERE file_row_number = ?"
            entries = self._arrow(f"SELECT * EXCLUDE (file_row_number) FROM {rows}", [int(row_number)])
        if not entries.num_rows:
            raise ValueError(f"there is no row {key!r}")
        entry = {column: as_json(value) for column, value in entries.slice(0, 1).to_pylist()[0].items()}
        texts = self._texts(table)
        for column in list(entry):
            ids = entry[column]
            if column.endswith("_ids") and isinstance(ids, list) and texts and all(isinstance(i, int) for i in ids):
                entry[column.removesuffix("_ids") + "_tokens"] = [texts.get(i, f"⟨{i}⟩") for i in ids[:MAX_TOKENS]]
        return entry

    def trace(self, name: str, trace_id: str, source: str = "") -> list[dict[str, Any]]:
        """The scored positions of one trace in order, with the text and the shift of each."""
        table = self._table(name)
        if table.kind != "positions":
            raise ValueError(f"{name} has no positions")
        columns = ["position", "token_id", "position_class", "kl_trained_base", "top1_changed", "trace_source"]
        values = [trace_id] + ([source] if source else [])
        rows = self._run(
            f"SELECT {', '.join(columns)}, base_token_logprob, trained_token_logprob, filename, file_row_number"
            f" FROM t{self.places[name]} WHERE trace_id = ? {'AND trace_source = ?' if source else ''}"
            f" ORDER BY trace_source, position LIMIT {MAX_TOKENS}",
            values,
        )
        texts = self._texts(table)
        return [
            {
                **{column: as_json(value) for column, value in zip(columns, row, strict=False)},
                TEXT: texts.get(row[1], ""),
                "base": probability(row[-4]),
                "trained": probability(row[-3]),
                "_row": f"{self._numbers[name][row[-2]]}:{row[-1]}",
            }
            for row in rows
        ]

    def histogram(self, name: str, column: str, filters: Sequence[Filter]) -> dict[str, Any]:
        """Counts of a column's values: of BINS equal bins between the 0.1 % quantiles, or of its texts."""
        table = self._table(name)
        self._check(table, [column])
        where, values = self._where(name, filters)
        source, quoted = self._source(name), identifier(column)
        if not is_number(table.schema.field(column).type):
            sql = (
                f"SELECT {quoted}::VARCHAR, count(*) AS n FROM {source} {where} GROUP BY 1 ORDER BY n DESC LIMIT {BINS}"
            )
            return {"texts": [[text, n] for text, n in self._run(sql, values)]}
        low, high = self._range(source, quoted, where, values)
        if low is None or high is None:
            return {"low": None, "high": None, "counts": []}
        width = (high - low) / BINS or 1.0
        bin_ = f"least(greatest(floor(({quoted} - ?) / ?), 0), {BINS - 1})::INT"
        sql = f"SELECT {bin_} AS b, count(*) FROM {source} {narrow(where, f'isfinite({quoted}::DOUBLE)')} GROUP BY b"
        counts = [0] * BINS
        for b, n in self._run(sql, [low, width, *values]):
            counts[b] = n
        return {"low": low, "high": low + width * BINS, "counts": counts}

    def scatter(self, name: str, x: str, y: str, filters: Sequence[Filter]) -> dict[str, Any]:
        """Counts of two columns' values in a grid of CELLS."""
        table = self._table(name)
        self._check(table, [x, y])
        for column in (x, y):
            if not is_number(table.schema.field(column).type):
                raise ValueError(f"{column} is not a number: choose two columns of numbers")
        where, values = self._where(name, filters)
        source, across, up = self._source(name), identifier(x), identifier(y)
        ranges = [self._range(source, column, where, values) for column in (across, up)]
        (x0, x1), (y0, y1) = ranges
        if x0 is None or x1 is None or y0 is None or y1 is None:
            return {"x": [None, None], "y": [None, None], "cells": []}
        steps = [(x1 - x0) / CELLS[0] or 1.0, (y1 - y0) / CELLS[1] or 1.0]
        cell = [
            f"least(greatest(floor(({column} - ?) / ?), 0), {size - 1})::INT"
            for column, size in zip((across, up), CELLS, strict=True)
        ]
        finite = f"isfinite({across}::DOUBLE) AND isfinite({up}::DOUBLE)"
        sql = f"SELECT {cell[0]} AS i, {cell[1]} AS j, count(*) FROM {source} {narrow(where, finite)} GROUP BY i, j"
        cells = self._run(sql, [x0, steps[0], y0, steps[1], *values])
        return {"x": [x0, x0 + steps[0] * CELLS[0]], "y": [y0, y0 + steps[1] * CELLS[1]], "grid": CELLS, "cells": cells}

    def export(self, name: str, filters: Sequence[Filter], limit: int) -> pa.Table:
        """The rows that pass, all their columns. Raises ValueError for more than `limit` of them."""
        self._table(name)
        if (count := self.count(name, filters)) > limit:
            raise ValueError(f"{count:,} rows are more than the {limit:,} that can be exported: add a filter")
        where, values = self._where(name, filters)
        order = "ORDER BY filename, file_row_number" if self.tables[name].joined else ""
        sql = f"SELECT * EXCLUDE (filename, file_row_number) FROM t{self.places[name]} {where} {order}"
        rows = self._arrow(sql, values)
        return with_known(rows) if self.tables[name].baseline else rows

    def _range(self, source: str, column: str, where: str, values: list[Any]) -> tuple[float | None, float | None]:
        """The 0.1 % quantiles of a sample, so that a few huge values do not fill a figure."""
        rows = f"SELECT {column}::DOUBLE AS v FROM {source} {narrow(where, f'isfinite({column}::DOUBLE)')} LIMIT 200000"
        low, high = self._run(f"SELECT quantile_cont(v, 0.001), quantile_cont(v, 0.999) FROM ({rows})", values)[0]
        return low, high

    def _where(self, name: str, filters: Sequence[Filter]) -> tuple[str, list[Any]]:
        """The condition, and the values of its parameters."""
        table = self._table(name)
        parts: list[str] = []
        values: list[Any] = []
        for column, operator, value in filters:
            if operator != "contains" and operator not in _OPERATORS:
                raise ValueError(f"unknown operator {operator!r}: choose from {', '.join(_OPERATORS)}, contains")
            if column == TEXT and table.kind == "positions":
                ids = matching_ids(self._texts(table), operator, value)
                parts.append("token_id IN (SELECT unnest(?::INT[]))")
                values.append(ids)
                continue
            self._check(table, [column])
            quoted = identifier(column)
            if operator == "contains":
                parts.append(f"contains(lower({quoted}::VARCHAR), lower(?))")
                values.append(value)
                continue
            parts.append(f"{quoted} {_OPERATORS[operator]} ?")
            values.append(parse_value(table.schema.field(column).type, value, column))
        return (f"WHERE {' AND '.join(parts)}" if parts else ""), values

    def _table(self, name: str) -> Table:
        if name not in self.tables:
            raise ValueError(f"there is no table {name!r}: the tables are {', '.join(self.tables)}")
        return self.tables[name]

    def _check(self, table: Table, columns: Sequence[str]) -> None:
        check_columns(columns, table.scalars, table.name)

    def _source(self, name: str) -> str:
        return f"{'i' if name in self._indexed else 't'}{self.places[self._table(name).name]}"

    def _texts(self, table: Table) -> dict[int, str]:
        if table.vocabulary is None:
            return {}
        if table.vocabulary not in self._vocabularies:
            self._vocabularies[table.vocabulary] = read_vocabulary(table.vocabulary)
        return self._vocabularies[table.vocabulary]

    def _run(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        return self._connection.cursor().execute(sql, list(values)).fetchall()

    def _arrow(self, sql: str, values: Sequence[Any]) -> pa.Table:
        table: pa.Table = self._connection.cursor().sql(sql, params=list(values)).to_arrow_table()
        return table
