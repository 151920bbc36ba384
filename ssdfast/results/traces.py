"""Traces: prompts, sampled tokens and how they were sampled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .. import traces
from ..schemas import SamplingSummary
from ..selected_shard import open_shard
from .base import Result, check_columns, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .frame import Frame

_SHORT = ("problem_id", "sample", "finish_reason", "correct", "source", "difficulty", "text")


class Traces(Result):
    """A run of `ssdfast.sample`, or any directory of traces.

    >>> traces = ssd.load("runs/traces")
    >>> len(traces)
    8
    >>> traces.table(["problem_id", "sample", "completion_ids"]).columns.tolist()
    ['problem_id', 'sample', 'completion_ids']
    """

    @property
    def files(self) -> list[Path]:
        """The Parquet files. Raises ValueError for none, and for a run that is not finished."""
        return traces.files(self.directory)

    def __len__(self) -> int:
        """The number of traces."""
        return sum(pq.read_metadata(file).num_rows for file in self.files)

    def summary(self) -> SamplingSummary | None:
        """Counts of traces, tokens, finish reasons and loops; None for traces from elsewhere.

        Raises ValueError for a file of another version.
        """
        path = self.directory / "sampling.json"
        return SamplingSummary.read(path) if path.exists() else None

    def arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """One row per trace. `completion_ids` and `prompt_ids` are token ids, `top_logprobs` nats.

        Raises ValueError for a column that does not exist, and for a shard that is missing.
        """
        files = self.files
        names = self._columns
        check_columns(columns or (), names, self.directory)
        table = pa.concat_tables([_read(file, columns or names) for file in files], promote_options="default")
        summary = self.summary()
        if summary and len(table) != summary.traces:
            raise ValueError(
                f"{self.directory} has {len(table):,} of its {summary.traces:,} traces, so a shard is missing: sample"
                " again with the same command"
            )
        return table

    def table(self, columns: Sequence[str] | None = None) -> Frame:
        """One row per trace, as a pandas DataFrame; without `columns` those that a person reads.

        Raises ValueError as `arrow`.
        """
        from .frame import Frame

        if columns is None:
            columns = [name for name in _SHORT if name in self._columns]
        return Frame.from_arrow(self.arrow(columns))

    def plot(self, ax: Axes | None = None) -> Axes:
        """The distribution of completion lengths, in tokens. Returns the matplotlib Axes."""
        ax = new_axes(ax)
        ax.hist(pc.list_value_length(self.arrow(["completion_ids"])["completion_ids"]).to_numpy(), bins=40)
        ax.set_xlabel("completion tokens")
        ax.set_ylabel("traces")
        return ax

    @property
    def _columns(self) -> list[str]:
        with open_shard(self.files[0]) as shard:
            return list(shard.schema_arrow.names)

    def _lines(self) -> Sequence[str]:
        summary = self.summary()
        if not summary:
            return [f"{len(self):,} traces"]
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in summary.finish_reasons.items())
        return [f"{summary.traces:,} traces of {summary.tokens:,} tokens: {reasons}"]


def _read(file: Path, columns: Sequence[str]) -> pa.Table:
    with open_shard(file) as shard:
        return shard.read(list(columns))
