"""What the pages of one probe, of several and of a study share: their inputs, and the data of the trace browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..schemas import ProbeSummary, read_vocabulary, vocabulary_file
from ..sharded_table import ShardedTable
from .column_encoding import describe_columns
from .page_traces import OWN, SHARED, Embedded
from .probe_source import Source

Value = TypeVar("Value")


def read_summary(run_dir: Path) -> ProbeSummary:
    """summary.json of a probe. Raises ValueError where it is missing, broken or lacks something."""
    return _read(run_dir / "summary.json", ProbeSummary.read)


def vocabulary_texts(run_dir: Path) -> dict[int, str]:
    """vocabulary.json of a probe. Raises ValueError where it is missing or broken."""
    return _read(vocabulary_file(run_dir), read_vocabulary)


def read_source(run_dir: Path, summary: ProbeSummary, model: str = "") -> Source:
    """The table of a probe. model: shown instead of the trace sources. Raises ValueError for a table without shards, or
    with broken ones."""
    table = ShardedTable.from_run(run_dir, summary.settings.table_dir)
    if not table.files():
        raise ValueError(f"{table.root} holds no shard-*.parquet: run the probe first")
    return Source.from_table(table, summary.settings, model)


def browser_data(embedded: Embedded) -> dict[str, Any]:
    """The traces, what they answer, and their texts."""
    return {
        "about": embedded.about,
        "tokens": {"ids": list(embedded.tokens.place), "texts": embedded.tokens.texts},
        "shared": embedded.shared,
        "traces": embedded.traces,
    }


def browser_settings(embedded: Embedded, source: Source) -> dict[str, Any]:
    """What the trace browser needs beside the traces."""
    left_out = (
        f"The {embedded.fraction:.0%} of a trace's positions that shifted most have candidates and all numbers here."
    )
    return {
        "columns": {"shared": describe_columns(SHARED), "own": describe_columns(OWN)},
        "decoding": source.decoding,
        "tokenClasses": embedded.token_classes,
        "leftOut": left_out if embedded.fraction < 1 else "",
    }


def _read(path: Path, read: Callable[[Path], Value]) -> Value:
    try:
        return read(path)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: run the probe first") from None
