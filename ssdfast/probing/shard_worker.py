"""What every process that makes shards of a probe does: plan the work, make shards, write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .. import models
from ..config import ExecutionConfig, ProbeConfig
from ..run_dir import RunError
from ..sharded_table import ShardedTable, ShardMetadata
from .model_loading import Prober
from .plan import make_plan
from .table import column_metadata
from .token_classes import classify

# So many failed traces, without one that succeeds, are no accident of a trace.
_HOPELESS = 8


def position_table(config: ProbeConfig, out: Path) -> ShardedTable:
    """The table of positions of a run."""
    return ShardedTable.from_run(out, config.table_dir)


def prepare(config: ProbeConfig, execution: ExecutionConfig, out: Path) -> Prober:
    """What a process needs to make shards. It loads no model yet."""
    baseline, trained = models.model_info(config.baseline), models.model_info(config.trained)
    plan = make_plan(config, baseline, trained)
    classes = classify(baseline.tokenizer, plan.texts, config.token_classes)
    return Prober(plan, baseline, trained, classes, execution, out / "spill")


def run_shards(prober: Prober, table: ShardedTable, indices: list[int], advance: Callable[[int], object]) -> None:
    """Make and write shards. Raises RunError where the models fail on all of the first traces."""
    if not indices:
        return
    columns = column_metadata(prober.config, prober.classes)
    scored = failures = 0
    for index, rows, failed in prober.shards(indices, advance):
        failures += len(failed)
        scored += sum(map(len, prober.plan.shards[index])) - len(failed)
        if failures >= _HOPELESS and not scored:
            raise RunError(f"the models failed on all of the first {failures} traces: {failed[0]['reason']}")
        table.write(index, rows, ShardMetadata(prober.plan.fingerprint(index), tuple(failed), columns))
