"""An evaluation: graded samples, accuracies and comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from ..number_format import format_interval, format_p_value
from ..schemas import EvaluationResults
from .base import Result, check_columns, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .frame import Frame


class Evaluation(Result):
    """A run of `ssdfast.evaluate`.

    >>> evals = ssd.load("runs/eval")
    >>> evals.runs()[["checkpoint", "samples"]].to_dict("records")
    [{'checkpoint': 'traces', 'samples': 8}]
    >>> sorted(set(evals.samples()["grade"]) - {"correct", "incorrect", "no_answer", "unparsable", "timeout"})
    []
    """

    def results(self) -> EvaluationResults:
        """All numbers. Raises ValueError for an evaluation that is not finished, or of another version."""
        path = self.directory / "eval" / "results.json"
        if not path.exists():
            raise ValueError(f"{self.directory} is an evaluation that is not finished: start its command again")
        return EvaluationResults.read(path)

    def runs(self) -> Frame:
        """One row per run, a checkpoint at one set of sampling parameters: `accuracy`, a fraction, with its interval,
        and the diagnostics, fractions too."""
        from .frame import Frame

        runs = self.results().runs
        frame = Frame.from_records(runs)
        rates = Frame.from_records([run.diagnostics for run in runs])
        for name in rates.columns:
            frame[name] = rates[name]
        for k in dict.fromkeys(k for run in runs for k in run.pass_at_k):
            frame[f"pass_at_{k}"] = [run.pass_at_k[k].value if k in run.pass_at_k else None for run in runs]
        return frame

    def comparisons(self) -> Frame:
        """One row per run beside the baseline's: `difference_pp` in percentage points, p-values, `mde_pp`."""
        from .frame import Frame

        return Frame.from_records(self.results().comparisons)

    def samples(self, columns: Sequence[str] | None = None) -> Frame:
        """One row per graded completion. Raises ValueError for a column that does not exist, naming the nearest."""
        from .frame import Frame

        return Frame.from_arrow(self.arrow(columns))

    def arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The same as an Arrow table."""
        path = self.directory / "eval" / "samples.parquet"
        if not path.exists():
            raise ValueError(f"{path} is missing: evaluate again with --overwrite")
        check_columns(columns or (), pq.read_schema(path).names, path)
        return pq.read_table(path, columns=columns and list(columns), partitioning=None)

    def plot(self, ax: Axes | None = None) -> Axes:
        """The accuracy of each run in percent, with its interval. Returns the matplotlib Axes."""
        runs = self.results().runs
        ax = new_axes(ax)
        for place, run in enumerate(runs):
            value, low, high = run.accuracy.value, run.accuracy.ci_low, run.accuracy.ci_high
            if value is not None:
                ax.plot([100 * value], [place], "o", color="C0")
                if low is not None and high is not None:
                    ax.plot([100 * low, 100 * high], [place, place], color="C0")
        ax.set_yticks(range(len(runs)), [run.name for run in runs])
        ax.invert_yaxis()
        ax.set_xlabel("accuracy, %")
        return ax

    def _lines(self) -> Sequence[str]:
        results = self.results()
        lines = [
            f"{run.name}: {format_interval(run.accuracy, percent=True, decimals=1)} of {run.samples:,} samples"
            for run in results.runs
        ]
        return lines + [
            f"{entry.run} − {entry.baseline}: {format_interval(entry.difference_pp, signed=True, decimals=1)}"
            f" percentage points, p = {format_p_value(entry.p_value_holm)} (Holm)"
            for entry in results.comparisons
        ]
