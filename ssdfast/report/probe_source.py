"""The table of one probe, as a page reads it: which columns, and in which shard each trace is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ..config import ProbeConfig
from ..sharded_table import ShardedTable
from .candidates import MODELS

_MODEL_COLUMNS = {"entropy": "entropy", "nucleus": "nucleus_size", "tail": "tail_mass", "rank": "token_rank"}
NUMBERS = {
    "kl": "kl_trained_base", "js": "js", "alignment": "ssd_alignment",
    **{f"{model}.{name}": f"{model}_{column}" for name, column in _MODEL_COLUMNS.items() for model in MODELS},
}  # fmt: skip
COLUMNS = (
    "trace_id", "problem_id", "trace_source", "position", "token_id", "position_class", "top1_changed",
    "self_correction", "trained_logprobs_at_base_top", "base_logprobs_at_trained_top", *NUMBERS.values(),
    *(f"{model}_{name}" for model in MODELS for name in ("token_logprob", "top_ids", "top_logprobs")),
)  # fmt: skip
_OPTIONAL_COLUMNS = ("token_class",)
KEY = ("trace_source", "trace_id")
Key = tuple[str, str]


@dataclass(frozen=True)
class Source:
    """The table of one probe."""

    table: ShardedTable
    files: dict[Key, str]
    """the shard of each trace"""
    settings: ProbeConfig
    model: str
    """shown instead of the trace source; "" shows the trace source"""

    @staticmethod
    def from_table(table: ShardedTable, settings: ProbeConfig, model: str = "") -> Source:
        """Raises ValueError for a file that is not a shard, or a trace in two shards."""
        return Source(table, find_traces(table), settings, model)

    def _optional_columns(self, file: str) -> list[str]:
        """Those of the optional columns that a shard has."""
        with self.table.open(file) as shard:
            return [name for name in _OPTIONAL_COLUMNS if name in shard.schema_arrow.names]

    def read_trace(self, key: Key) -> pa.Table:
        """The columns of one trace, by position."""
        filters = [(name, "=", value) for name, value in zip(KEY, key, strict=True)]
        columns = [*COLUMNS, *self._optional_columns(self.files[key])]
        return self.table.read(self.files[key], columns, filters).sort_by("position")

    @property
    def decoding(self) -> dict[str, Any] | None:
        """Temperature and truncation of decoding for the page; None where the top lists do not hold its support."""
        sampling = self.settings.eval_sampling
        if not sampling.top_k:
            return None
        text = f"T {sampling.temperature:g}, {format_truncation(sampling.top_k, sampling.top_p)}"
        return {"temperature": sampling.temperature, "text": text}


def format_truncation(top_k: int, top_p: float) -> str:
    return f"top-k {top_k}, top-p {top_p:g}"


def find_traces(table: ShardedTable) -> dict[Key, str]:
    """The shard of each trace. Raises ValueError for a file that is not a shard, or a trace in two shards."""
    files: dict[Key, str] = {}
    for path in table.files():
        try:
            with table.open(path) as file:
                missing = set(COLUMNS) - set(file.schema_arrow.names)
                if missing:
                    raise ValueError(
                        f"{path} has no column {', '.join(sorted(missing))}: run the probe again --overwrite"
                    )
                keys = file.read(columns=list(KEY)).group_by(list(KEY)).aggregate([])
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path} is not a readable Parquet file ({error}): delete it and probe again") from error
        for key in zip(*(keys[name].to_pylist() for name in KEY), strict=True):
            if key in files:
                raise ValueError(f"trace {key[1]!r} of {key[0]!r} is in {files[key]} and in {path}: delete one")
            files[key] = path
    return files
