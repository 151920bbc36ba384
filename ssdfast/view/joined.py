"""Tables with columns in files of their own: the baseline's, which several models of a probe share, and those of
selected traces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..joined_shard import KEYS
from ..selected_shard import OWN, open_shard
from ..sharded_table import ShardedTable
from .find_tables import Table
from .values import quote


def rows_sql(table: Table, files: Iterable[str]) -> str:
    """The rows of a table in SQL, with `filename` and `file_row_number`. files: its own, as they are to be named."""
    if table.sources:
        names = [name for name in OWN if name in pq.read_schema(table.sources[0].absolute()).names]
        pairs = zip(files, table.sources, strict=True)
        return f"({' UNION ALL BY NAME '.join(_selected_sql(file, str(source), names) for file, source in pairs)})"
    own = f"read_parquet([{', '.join(map(quote, files))}], file_row_number = true, filename = true)"
    if not table.baseline:
        return own
    shared = ", ".join(quote(str(file)) for file in table.baseline)
    return f"{own} AS own JOIN read_parquet([{shared}]) AS shared USING ({', '.join(KEYS)})"


def _selected_sql(file: str, source: str, names: Sequence[str]) -> str:
    """The rows of a file of selected traces. names: the columns of the source that are the selection's own."""
    return (
        f"SELECT {', '.join(f'own.{name}' for name in OWN)}, held.* EXCLUDE ({', '.join(names)}, file_row_number),"
        f" own.filename, own.file_row_number"
        f" FROM read_parquet({quote(file)}, file_row_number = true, filename = true) AS own"
        f" JOIN read_parquet({quote(source)}, file_row_number = true) AS held ON held.file_row_number = own.source_row"
    )


def one_row(table: Table, file: Path, number: int) -> pa.Table:
    """All columns of a row of a shard."""
    if table.sources:
        with open_shard(file) as selected:
            return selected.read().slice(number, 1)
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
