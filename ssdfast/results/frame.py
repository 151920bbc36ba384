"""A pandas DataFrame that also comes as Arrow and polars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ..schemas import Record

try:
    import pandas as pd
except ImportError:
    raise ValueError("tables need pandas: pip install 'ssdfast[notebook]'") from None


class Frame(pd.DataFrame):
    """A pandas DataFrame. Lists, such as the top tokens of a position, stay in Arrow."""

    @property
    def _constructor(self) -> type[Frame]:
        return Frame

    @classmethod
    def from_arrow(cls, table: pa.Table) -> Frame:
        """Numbers as numpy columns, text of few values as categories, lists as Arrow columns."""
        return cls(table.to_pandas(types_mapper=lambda kind: pd.ArrowDtype(kind) if _is_list(kind) else None))

    @classmethod
    def from_records(cls, records: Sequence[Record], columns: Sequence[str] = ()) -> Frame:
        """A row per record; an interval becomes columns ``name``, ``name_ci_low`` and ``name_ci_high``.

        columns: the fields, in order; none takes all.
        """
        return cls([_flat(record.model_dump(include=set(columns) if columns else None)) for record in records])

    def arrow(self) -> pa.Table:
        """The rows as an Arrow table; its index is left out."""
        return pa.Table.from_pandas(self, preserve_index=False).replace_schema_metadata()

    def polars(self) -> Any:
        """The rows as a polars DataFrame. Raises ValueError where polars is missing."""
        try:
            import polars
        except ImportError:
            raise ValueError("polars is not installed: pip install polars") from None
        return polars.from_arrow(self.arrow())


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind))


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and "ci_low" in value:
            row |= {name: value["value"], f"{name}_ci_low": value["ci_low"], f"{name}_ci_high": value["ci_high"]}
        elif not isinstance(value, dict | list | tuple):
            row[name] = value
    return row
