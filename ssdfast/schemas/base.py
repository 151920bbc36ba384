"""The base of every JSON file that one stage writes and another reads: one model for both."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from ..run_dir import SCHEMA_VERSION, check_schema, read_json, write_json


class Record(BaseModel):
    """An object within such a file. Unknown keys are rejected, so that writer and reader cannot drift apart."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    def to_json(self) -> dict[str, Any]:
        """The JSON values, of the keys that were set."""
        return self.model_dump(mode="json", exclude_unset=True)


class JsonFile(Record):
    """A JSON file of a run directory. Every file starts with the versions that wrote it."""

    schema_version: int = SCHEMA_VERSION
    """The version of the names in the file."""
    ssdfast_version: str | None = None
    """The version of the package that wrote the file."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """The file at `path`.

        Raises FileNotFoundError where there is none, and ValueError in one sentence for a file of another schema
        version, or whose keys or values are not those of this model.
        """
        return cls.parse(read_json(path), path)

    @classmethod
    def parse(cls, values: Any, path: Path) -> Self:
        """`values`, read from `path`. Raises ValueError as `read`."""
        check_schema(values if isinstance(values, dict) else {}, path)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise ValueError(
                f"{path}: {key}: {first['msg']} (got {first['input']!r:.80}), from ssdfast"
                f" {values.get('ssdfast_version')}: run the stage again in a new directory, or with --overwrite"
            ) from None

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all. Raises ValueError for a NaN."""
        write_json(path, self.to_json())


class Interval(Record):
    """A value with its interval, None where undefined."""

    value: float | None
    ci_low: float | None
    ci_high: float | None
    ci_level: float | None = None
    """The level of the interval, where files vary it; 0.95 elsewhere."""
    ci_method: str | None = None
    """How the interval was computed, where files vary it."""
