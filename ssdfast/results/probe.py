"""A probe: the shift of a trained model from its baseline at every position of given traces."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ..config import read_yaml
from ..number_format import format_interval
from ..schemas import ProbeSummary, read_vocabulary, vocabulary_file
from ..sharded_table import ShardedTable
from .base import Result, check_columns, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .frame import Frame

_BY_DEFAULT = (
    "trace_source", "trace_id", "problem_id", "correct", "position", "token_id", "token_class", "position_class",
    "top1_changed", "self_correction", "kl_trained_base", "kl_base_trained", "js", "ssd_alignment", "base_entropy",
    "trained_entropy", "base_token_logprob", "trained_token_logprob", "base_nucleus_size", "trained_nucleus_size",
)  # fmt: skip


class Probe(Result):
    """A run of `ssdfast.probe`.

    >>> probe = ssd.load("runs/probe")
    >>> frame = probe.positions(["position_class", "kl_trained_base"])
    >>> len(frame) == probe.summary().positions
    True
    >>> probe.positions(["kl_trained_bas"])
    Traceback (most recent call last):
    ValueError: ... has no column 'kl_trained_bas': did you mean kl_trained_base or kl_base_trained or ...?
    """

    def summary(self) -> ProbeSummary:
        """Means over positions, by position class and trace source, with 95 % intervals over traces.

        Raises ValueError for a probe that is not finished, or of another version.
        """
        path = self.directory / "summary.json"
        if not path.exists():
            config = self.directory / "config.yaml"
            if config.exists() and read_yaml(config).get("trained") == "":
                raise ValueError(
                    f"{self.directory} has the baseline's columns of the probes beside it: load one of them"
                )
            raise ValueError(
                f"{self.directory} is a probe that is not finished: start the command that began it again, or `ssdfast"
                f" probe --config {self.directory / 'config.yaml'} --out {self.directory}`"
            )
        return ProbeSummary.read(path)

    @property
    def columns(self) -> list[str]:
        """The names of all columns of the table."""
        table = self._table()
        with table.open(table.files()[0]) as shard:
            names: list[str] = shard.schema_arrow.names
        return names

    def positions(self, columns: Sequence[str] | None = None, trace: str | None = None) -> Frame:
        """One row per position, as a pandas DataFrame; `.arrow()` and `.polars()` convert it.

        columns: names from `columns`; None takes those that a person reads. Logarithms are in nats. trace: the id of
        one trace. Raises ValueError for a column or a trace that does not exist, naming the nearest, and for a shard
        that is missing.
        """
        from .frame import Frame

        return Frame.from_arrow(self.arrow(columns, trace))

    def arrow(self, columns: Sequence[str] | None = None, trace: str | None = None) -> pa.Table:
        """The same as an Arrow table, which is not copied. Raises ValueError as `positions`."""
        table, present = self._table(), self.columns
        chosen = [name for name in _BY_DEFAULT if name in present] if columns is None else list(columns)
        check_columns(chosen, present, self.directory)
        filters = None if trace is None else [("trace_id", "==", trace)]
        rows = pa.concat_tables(
            [table.read(file, chosen, filters) for file in table.files()], promote_options="permissive"
        ).unify_dictionaries()
        if trace is not None and not len(rows):
            ids = self.arrow(["trace_id"])["trace_id"].unique().to_pylist()
            raise ValueError(f"{self.directory} has no trace {trace!r}: its traces are {', '.join(ids[:5])}, …")
        return rows

    def trace(self, trace_id: str) -> Trace:
        """One trace. Raises ValueError where there is none of this id."""
        return Trace(self, trace_id)

    def plot(self, metric: str = "kl_trained_base", ax: Axes | None = None) -> Axes:
        """The mean of a metric of `summary` by position class, with its interval. Returns the matplotlib Axes."""
        summary = self.summary()
        check_columns([metric], [name for name in type(summary.all).model_fields if name[:8] != "position"], self)
        groups = {"all": summary.all, **summary.by_position_class}
        ax = new_axes(ax)
        for place, (name, group) in enumerate(groups.items()):
            interval = getattr(group, metric)
            if interval.value is not None:
                ax.plot([interval.ci_low, interval.ci_high], [place, place], color="C0")
                ax.plot([interval.value], [place], "o", color="C0", label=name)
        ax.set_yticks(range(len(groups)), list(groups))
        ax.invert_yaxis()
        ax.set_xlabel(metric)
        return ax

    @cached_property
    def vocabulary(self) -> dict[int, str]:
        """The text of each token id."""
        return read_vocabulary(vocabulary_file(self.directory))

    def _table(self) -> ShardedTable:
        summary = self.summary()
        table = ShardedTable.from_run(self.directory, summary.settings.table_dir)
        rows = sum(shard.metadata.num_rows for shard in table.shards())
        expected = summary.positions + summary.invalid
        if rows != expected or not rows:
            raise ValueError(
                f"{table.root} holds {rows:,} of {expected:,} positions, so a shard is missing: remove"
                f" {self.directory / 'summary.json'} and probe again with the same settings, which makes it again"
            )
        return table

    def _lines(self) -> Sequence[str]:
        summary = self.summary()
        fraction = format_interval(summary.all.ssd_variance_fraction, percent=True)
        return [
            f"{summary.positions:,} positions of {summary.traces:,} traces, {Path(summary.settings.trained).name}",
            f"shift, KL(trained ‖ baseline): {format_interval(summary.all.kl_trained_base)} nats per position",
            f"fraction of the shift along what self-distillation predicts: {fraction}",
        ]


class Trace:
    """One trace of a probe.

    >>> tokens = ssd.load("runs/probe").trace("problem0#0").tokens()
    >>> tokens.columns.tolist()[:3]
    ['position', 'text', 'kl_trained_base']
    """

    def __init__(self, probe: Probe, trace_id: str) -> None:
        self.probe, self.trace_id = probe, trace_id

    def tokens(self) -> Frame:
        """One row per scored position: its text, its shift in nats, and each model's probability of the token."""
        import numpy as np

        frame = self.probe.positions(
            [
                "position",
                "token_id",
                "kl_trained_base",
                "position_class",
                "base_token_logprob",
                "trained_token_logprob",
            ],
            self.trace_id,
        )
        frame.insert(1, "text", [self.probe.vocabulary.get(token, "") for token in frame.pop("token_id")])
        for model in ("base", "trained"):
            frame[f"{model}_probability"] = np.exp(frame.pop(f"{model}_token_logprob"))
        return frame

    def candidates(self, position: int) -> Frame:
        """The baseline's most likely tokens at a position, with the probabilities of both models."""
        import numpy as np

        from .frame import Frame

        lists = ["base_top_ids", "base_top_logprobs", "trained_logprobs_at_base_top"]
        rows = self.probe.arrow(["position", *lists], self.trace_id)
        places = np.flatnonzero(rows["position"].to_numpy() == position)
        if not len(places):
            raise ValueError(f"trace {self.trace_id!r} has no scored position {position}")
        ids, base, trained = (rows[name][int(places[0])].as_py() for name in lists)
        values: dict[str, Any] = {
            "text": [self.probe.vocabulary.get(token, "") for token in ids],
            "base": np.exp(base),
            "trained": np.exp(trained),
        }
        return Frame(values)

    def __repr__(self) -> str:
        return f"{self.probe!r}.trace({self.trace_id!r})"
