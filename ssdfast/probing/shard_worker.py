"""What every process that makes shards of a probe does: plan the work, make shards, write them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from .. import models
from ..config import ExecutionConfig, ProbeConfig
from ..run_dir import RunError
from ..sharded_table import ForeignShard, ShardedTable, ShardMetadata
from .baseline_states import BaselineStates
from .model_loading import Failed, FinishedShard, Prober
from .plan import Plan, make_plan
from .table import column_metadata, of_baseline, of_trained
from .targets import Target
from .token_classes import classify

_log = logging.getLogger("ssdfast.probing")

# So many failed traces, without one that succeeds, are no accident of a trace.
_HOPELESS = 8


def prepare(targets: Sequence[Target], execution: ExecutionConfig, out: Path) -> Prober:
    """What a process needs to make shards. It loads no model yet.

    Raises ValueError as `make_plan`, and for models that are compared over other tokens than the shards that are there.
    """
    first = targets[0]
    rows = None if first.baseline is None else _compared(first.baseline)
    prober = _prober(first.config, targets, execution, out, rows)
    if rows and len(prober.plan.texts) != rows:
        raise ValueError(
            f"the models of {out} are compared over {rows:,} tokens, and lm_head has {len(prober.plan.texts):,} rows in"
            f" {' or '.join(target.config.trained for target in targets)}: choose another --out"
        )
    return prober


def prepare_baseline(config: ProbeConfig, execution: ExecutionConfig, out: Path) -> Prober:
    """The same of a process that makes shards of the baseline alone."""
    return _prober(config, [], execution, out, None)


def _prober(
    config: ProbeConfig, targets: Sequence[Target], execution: ExecutionConfig, out: Path, rows: int | None
) -> Prober:
    baseline = models.model_info(config.baseline)
    plan = make_plan(config, baseline, [target.trained for target in targets], rows)
    classes = classify(baseline.tokenizer, plan.texts, config.token_classes)
    states = BaselineStates(plan, baseline, execution, out / "spill")
    return Prober(plan, baseline, targets, classes, execution, states)


def unfinished(plan: Plan, table: ShardedTable, wanted: Callable[[int], str]) -> set[int]:
    """The shards to make: those that are missing, truncated, or have traces that a model failed on.

    wanted: the fingerprint of a shard. Raises ValueError for a shard of another run.
    """
    table.sweep()
    todo = set()
    for index in range(len(plan.shards)):
        try:
            metadata = table.metadata(index)
        except ForeignShard:
            raise
        except ValueError as error:
            _log.warning("%s: it is made again", error)
            table.remove(index)
            metadata = None
        if metadata and metadata.fingerprint != wanted(index):
            raise ValueError(
                f"{table.root} holds shard {index} of a probe with other settings, other traces or another version:"
                " choose another directory, or --overwrite it"
            )
        if metadata is None or metadata.failed:
            todo.add(index)
    return todo


def run_shards(prober: Prober, todo: Mapping[str, Sequence[int]], advance: Callable[[int], object]) -> None:
    """Make and write shards of each target, by its name. Raises RunError where the models fail on all of the first
    traces."""
    if not any(todo.values()):
        return
    scored: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    for shard in prober.shards(todo, advance):
        name = shard.target.name
        failures[name] += len(shard.failed)
        scored[name] += sum(map(len, prober.plan.shards[shard.index])) - len(shard.failed)
        if failures[name] >= _HOPELESS and not scored[name]:
            raise RunError(
                f"the models failed on all of the first {failures[name]} traces: {shard.failed[0]['reason']}"
            )
        _write(prober, shard)


def fingerprint(plan: Plan, target: Target, index: int) -> str:
    """Of a shard of a target."""
    return replace(plan, config=target.config).fingerprint(index)


def _write(prober: Prober, shard: FinishedShard) -> None:
    """The shard, after that of the baseline where they share its columns."""
    target, index = shard.target, shard.index
    columns = column_metadata(target.config, prober.classes)
    metadata = ShardMetadata(fingerprint(prober.plan, target, index), tuple(shard.failed), columns)
    if target.baseline is None:
        target.table.write(index, shard.table, metadata)
        return
    if not _is_there(target.baseline, index):
        table, failed = shard.of_baseline() if shard.failed else (of_baseline(shard.table), [])
        write_baseline(prober, target.baseline, index, table, failed)
    target.table.write(index, of_trained(shard.table), replace(metadata, baseline=target.baseline.run_name))


def write_baseline(prober: Prober, where: ShardedTable, index: int, table: pa.Table, failed: Failed) -> None:
    """A shard of the columns that several trained models share."""
    columns: dict[str, Any] = column_metadata(prober.plan.config, prober.classes)
    del columns["train_sampling"]
    columns["compared_tokens"] = len(prober.plan.texts)
    where.write(index, table, ShardMetadata(prober.states.fingerprint(index), tuple(failed), columns))


def _is_there(table: ShardedTable, index: int) -> bool:
    metadata = table.metadata(index)
    return metadata is not None and not metadata.failed


def _compared(table: ShardedTable) -> int | None:
    """The number of tokens that the shards of a baseline compare; None where there are none."""
    return next((int(shard.columns["compared_tokens"]) for shard in table.descriptions()), None)
