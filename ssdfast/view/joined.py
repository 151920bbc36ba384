"""Tables whose baseline's columns are in a table of their own, as several models of a probe share them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..joined_shard import KEYS
from ..sharded_table import ShardedTable
from .find_tables import Table
from .values import quote


def rows_sql(table: Table, files: Iterable[str]) -> str:
    """The rows of a table in SQL, with `filename` and `file_row_number`. files: its own, as they are to be named."""
    own = f"read_parquet([{', '.join(map(quote, files))}], file_row_number = true, filename = true)"
    if not table.baseline:
        return own
    shared = ", ".join(quote(str(file)) for file in table.baseline)
    return f"{own} AS own JOIN read_parquet([{shared}]) AS shared USING ({', '.join(KEYS)})"


def one_row(file: Path, number: int) -> pa.Table:
    """All columns of a row of a shard."""
    with ShardedTable(str(file.parent)).open(str(file)) as shard:
        return shard.read().slice(number, 1)


def check_rows(table: Table, joined: int) -> None:
    """Raises ValueError where fewer rows were joined than the table holds."""
    stored = sum(int(pq.read_metadata(file.absolute()).num_rows) for file in table.files)
    if joined != stored:
        raise ValueError(
            f"{table.baseline[0].parent} has {joined:,} of the {stored:,} positions of {table.files[0].parent}: probe"
            " again"
        )
