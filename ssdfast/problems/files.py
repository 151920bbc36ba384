"""Problems from a file: one per row, line or object."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from ..config import ProblemsConfig
from .rows import Read, Row, parse_rows

_BOM = b"\xef\xbb\xbf"


def load(path: Path, config: ProblemsConfig) -> Read:
    """The problems of a file with one of the suffixes in `READERS`. Raises ValueError for an invalid file."""
    try:
        return parse_rows(READERS[path.suffix.lower()](path), str(path), path.stem, config)
    except FileNotFoundError:
        raise ValueError(
            f"there is no file {path} (problems.sources and problems.decontaminate_against name files)"
        ) from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a directory: name the file in it, or write hf:{path}@SPLIT") from None


def read_jsonl(path: Path) -> Iterator[Row]:
    """The number of each line that is not blank, and its object or the reason why it has none."""
    for number, line in enumerate(path.read_bytes().removeprefix(_BOM).split(b"\n"), 1):
        if line.strip():
            yield number, _object(line)


def _object(line: bytes) -> dict | str:
    """The JSON object in `line`, or the reason why it is malformed."""
    try:
        value = json.loads(line.decode(), parse_constant=_reject, object_pairs_hook=_distinct_keys)
    except UnicodeDecodeError as error:
        return f"not UTF-8 ({error.reason} at byte {error.start + 1})"
    except (ValueError, RecursionError) as error:
        return f"not JSON ({error})"
    return value if isinstance(value, dict) else f"not a JSON object but {type(value).__name__}"


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is repeated")
    return values


def _reject(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not allowed in JSON")


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # the default of 128 kB is less than some worked solutions
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        header: list[str] = []
        end = 0
        try:
            for fields in reader:
                start, end = end + 1, reader.line_num
                if not fields:
                    continue
                if not header:
                    header = fields
                    if len(set(header)) < len(header):
                        raise ValueError(f"{path} names a column twice ({', '.join(header)}): rename one")
                elif len(fields) != len(header):
                    yield start, f"{len(fields)} fields where the header has {len(header)}"
                elif any("\udc80" <= char <= "\udcff" for field in fields for char in field):
                    yield start, "not UTF-8"
                else:
                    yield start, dict(zip(header, fields, strict=True))
        except csv.Error as error:
            raise ValueError(f"{path}:{end + 1}: not CSV from here on ({error}): fix the quotes") from None


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path.absolute(), partitioning=None)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a Parquet file ({' '.join(str(error).split())}): write it again") from None
    batches = table.to_batches(max_chunksize=4096)
    yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)


READERS = {".jsonl": read_jsonl, ".parquet": _parquet, ".csv": _csv}
