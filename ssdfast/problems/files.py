"""Problems from a file: one per row, line or object."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from ..config import ProblemsConfig
from ..messages import one_line
from .rows import Read, Row, parse_rows

_BOM = b"\xef\xbb\xbf"
_POINTER = b"version https://git-lfs"
_OTHER_CONTENT = {
    b"\x1f\x8b": "is compressed: unpack it with gunzip",
    b"\x28\xb5\x2f\xfd": "is compressed: unpack it with unzstd",
    b"PK\x03\x04": "is a zip archive: unpack it, or export a spreadsheet as CSV",
    b"PAR1": "is Parquet: rename it to end in .parquet",
    b"\xff\xfe": "is UTF-16: save it as UTF-8",
    b"\xfe\xff": "is UTF-16: save it as UTF-8",
    _POINTER: "is a pointer of Git LFS, not the file: run git lfs pull",
}
"""By the first bytes."""
_CONVERSIONS = {
    ".json": "write a line per object, jq -c '.[]' FILE.json > FILE.jsonl (of a log of inspect, '.samples[]')",
    ".eval": "write a line per sample, inspect log dump FILE.eval | jq -c '.samples[]' > FILE.jsonl",
    ".gz": "unpack it with gunzip",
    ".zst": "unpack it with unzstd",
    ".tsv": "save it with commas, as .csv",
}


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


def conversion(path: Path) -> str:
    """What to do with a file of another suffix, for a message."""
    return _CONVERSIONS.get(path.suffix.lower(), "convert it to .jsonl")


def read_jsonl(path: Path) -> Iterator[Row]:
    """The number of each line that is not blank, and its object or the reason why it has none. Raises ValueError for a
    file that is no JSONL as a whole."""
    content = path.read_bytes()
    _refuse_other_content(path, content)
    content = content.removeprefix(_BOM)
    _refuse_other_json(path, content)
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            yield number, _object(line)


def _refuse_other_content(path: Path, content: bytes) -> None:
    """Raises ValueError with the remedy for bytes that are no text in UTF-8."""
    for begin, remedy in _OTHER_CONTENT.items():
        if content.startswith(begin):
            raise ValueError(f"{path} {remedy}")
    if b"\0" in content[:2]:
        raise ValueError(f"{path} is UTF-16 or no text at all: save it as UTF-8")


def _refuse_other_json(path: Path, content: bytes) -> None:
    """Raises ValueError with the remedy for one JSON array, and for objects over several lines."""
    begin = content.lstrip()
    first_line = begin.split(b"\n", 1)[0].strip()
    if not begin.startswith((b"[", b"{")) or (begin.startswith(b"{") and isinstance(_object(first_line), dict)):
        return
    try:
        text = begin.decode()
        value, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return
    if isinstance(value, list) and not text[end:].strip():
        raise ValueError(f"{path} is one JSON array: write a line per object, jq -c '.[]' {path} > FILE.jsonl")
    if isinstance(value, dict) and "\n" in text[:end].rstrip():
        raise ValueError(f"{path} is JSON over several lines: write a line per object, jq -c . {path} > FILE.jsonl")


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
    with path.open("rb") as binary:
        _refuse_other_content(path, binary.read(64))
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
                    _check_header(path, header)
                elif len(fields) != len(header):
                    yield start, f"{len(fields)} fields where the header has {len(header)}"
                elif not all(map(_is_utf8, fields)):
                    yield start, "not UTF-8"
                else:
                    yield start, dict(zip(header, fields, strict=True))
        except csv.Error as error:
            raise ValueError(f"{path}:{end + 1}: not CSV from here on ({error}): fix the quotes") from None


def _check_header(path: Path, header: list[str]) -> None:
    """Raises ValueError for names that occur twice, are not UTF-8, or are one name with another separator inside."""
    names = ", ".join(header)
    if not _is_utf8(names):
        raise ValueError(f"{path}: the names of its columns are not UTF-8: save it as UTF-8")
    _check_distinct(path, header)
    separators = [char for char in ";\t|" if char in names]
    if len(header) == 1 and separators:
        raise ValueError(f"{path} is separated by {separators[0]!r}: save it with commas")


def _check_distinct(path: Path, names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise ValueError(f"{path} names a column twice ({', '.join(names)}): rename one")


def _is_utf8(text: str) -> bool:
    return not any("\udc80" <= char <= "\udcff" for char in text)


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise ValueError(f"{path} {_OTHER_CONTENT[_POINTER]}")


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.is_file():
            _refuse_pointer(path)
            _check_distinct(path, pq.read_schema(path.absolute()).names)
        table = pq.read_table(path.absolute(), partitioning=None)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a Parquet file ({one_line(error)}): write it again") from None
    batches = table.to_batches(max_chunksize=4096)
    yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)


READERS = {".jsonl": read_jsonl, ".parquet": _parquet, ".csv": _csv}
