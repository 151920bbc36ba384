"""The tables in a directory: positions of probes, graded samples, traces. Nothing outside the directory is listed."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from ..messages import one_line
from ..schemas import vocabulary_file
from ..selected_shard import open_shard, source_of
from ..sharded_table import ShardedTable, baseline_name

Kind = Literal["positions", "samples", "traces"]
_DIGEST = re.compile(r"-[0-9a-f]{10}$")
_SKIPPED = ("model", "checkpoints", "spill")
_DEPTH = 6


@dataclass(frozen=True)
class Table:
    """A table of Parquet files with one schema."""

    name: str
    kind: Kind
    files: list[Path]
    schema: pa.Schema
    vocabulary: Path | None
    """the vocabulary.json that its token ids belong to"""
    baseline: tuple[Path, ...] = ()
    """the files of the baseline's columns, where several models share them"""
    sources: tuple[Path, ...] = ()
    """for each of `files` the one that holds the traces which it selects"""

    @property
    def joined(self) -> bool:
        """Whether columns are in other files."""
        return bool(self.baseline or self.sources)

    @property
    def scalars(self) -> list[str]:
        """The columns that hold one value per row."""
        return [field.name for field in self.schema if not pa.types.is_nested(field.type)]


def find_tables(root: Path) -> list[Table]:
    """The tables below `root`. Raises ValueError for a directory without any, or a file that is no Parquet file."""
    if not root.is_dir():
        raise ValueError(f"there is no directory {root}: name a run, or a directory of traces")
    inside = root.resolve()
    tables: list[Table] = []
    vocabularies: dict[Path, Path] = {}
    for directory, names, files in os.walk(root):
        path = Path(directory)
        depth = len(path.relative_to(root).parts)
        names[:] = [] if depth >= _DEPTH else sorted(n for n in names if n[0] != "." and n not in _SKIPPED)
        if "vocabulary.json" in files:
            vocabularies[path] = path / "vocabulary.json"
        parquet = sorted(path / name for name in files if name.endswith(".parquet") and name[0] != ".")
        parquet = [file for file in parquet if file.resolve().is_relative_to(inside)]
        if not parquet:
            continue
        schema = _schema(parquet[0])
        baseline = _baseline(parquet, schema)
        sources = tuple(filter(None, map(source_of, parquet))) if "source_row" in schema.names else ()
        sources = sources if len(sources) == len(parquet) else ()
        if baseline:
            with ShardedTable(str(path.absolute())).open(str(parquet[0].absolute())) as shard:
                schema = shard.schema_arrow
        elif sources and all(file.resolve().is_relative_to(inside) for file in sources):
            with open_shard(parquet[0]) as selected:
                schema = selected.schema_arrow
        if kind := _kind(schema):
            tables.append(Table(_name(kind, path, root), kind, parquet, schema, None, baseline, sources))
    if not tables:
        raise ValueError(f"{root} holds no positions, graded samples or traces: name a run, or a directory of traces")
    any_vocabulary = next(iter(vocabularies.values()), None)
    for table in tables:
        shared = vocabulary_file(table.files[0].parent.parent)
        if table.baseline and shared.exists():
            vocabularies[table.files[0].parent.parent] = shared
    return [
        replace(t, vocabulary=vocabularies.get(t.files[0].parent.parent, any_vocabulary))
        for t in sorted(tables, key=lambda t: (("positions", "samples", "traces").index(t.kind), t.name))
    ]


def _baseline(files: list[Path], schema: pa.Schema) -> tuple[Path, ...]:
    """The files of the baseline's columns of each shard; none where the shards have them."""
    table = ShardedTable(str(files[0].absolute().parent))
    name = baseline_name(schema)
    return tuple(Path(table.baseline_file(str(file.absolute()), name)) for file in files) if name else ()


def _schema(file: Path) -> pa.Schema:
    try:
        return pq.read_schema(file.absolute())
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{file} is not a complete Parquet file ({one_line(error)}): make it again") from None


def _kind(schema: pa.Schema) -> Kind | None:
    names = set(schema.names)
    if {"trace_id", "position", "token_id", "kl_trained_base"} <= names:
        return "positions"
    if {"grade", "answer", "problem_id"} <= names:
        return "samples"
    return "traces" if {"prompt_ids", "completion_ids"} <= names else None


def _name(kind: Kind, path: Path, root: Path) -> str:
    """The kind and, within a study, the stage: ``positions of probe/ssd-0``."""
    parts = [_DIGEST.sub("", part) for part in path.relative_to(root).parts if part not in ("positions", "eval")]
    return f"{kind} of {'/'.join(parts)}" if parts else kind
