"""The baseline's part of a probe alone, for probes of trained models in directories beside it."""

from __future__ import annotations

from pathlib import Path

from .. import run_dir
from ..config import ExecutionConfig, ProbeConfig
from ..hub import local_path
from ..manifest import input_hashes, write_manifest
from ..processor import device_name
from ..progress import progress
from ..run_dir import RunError
from ..sharded_table import ForeignShard, ShardedTable
from ..threads import set_threads
from ..traces import traces_path
from .model_loading import Prober
from .shard_worker import prepare_baseline, unfinished, write_baseline

RESULTS = ("positions", "spill")


def probe_baseline(config: ProbeConfig, out: Path, execution: ExecutionConfig) -> None:
    """Fill `out` with config.yaml, manifest.json and the baseline's columns in positions/shard-*.parquet, and
    `execution.baseline_states` with its hidden states.

    config: of any of the trained models, whose path is not used. Finishes an earlier run. Raises ValueError as
    `runner.probe`, and RunError for the first trace that the baseline fails on; all before it are kept.
    """
    set_threads(execution.num_threads)
    config = config.without_trained()
    with run_dir.lock(out):
        run_dir.check_claim(out, config, RESULTS, overwrite=False)
        prober = prepare_baseline(config, execution, out)
        plan, table = prober.plan, ShardedTable.from_run(out, config.table_dir)
        run_dir.claim(out, config, RESULTS, overwrite=False)
        model = local_path(config.baseline)
        inputs = [model, *(traces_path(Path(source.path)) for source in config.traces)]
        write_manifest(out, device_name(), config.seed, inputs)
        prober.states.hashes = input_hashes(out, model)
        run_dir.sweep(prober.states.spill)
        todo = sorted(unfinished(plan, table, prober.states.fingerprint))
        with progress("probing", sum(map(plan.tokens, todo)), "tokens") as advance:
            for index, columns, failed in prober.baseline_shards(todo, advance):
                write_baseline(prober, table, index, columns, failed)
                if failed:
                    raise RunError(f"trace {failed[0]['trace_id']} could not be scored: {failed[0]['reason']}")
        prober.states.remove()  # of a run that was killed between a shard and its release


def check_baseline(prober: Prober, table: ShardedTable) -> None:
    """Raises ValueError unless `probe_baseline` has filled `table` for these traces and settings.

    Several processes read it, so none of them repairs it.
    """
    for index in range(len(prober.plan.shards)):
        try:
            metadata = table.metadata(index)
        except ForeignShard:
            raise
        except ValueError:  # truncated
            metadata = None
        if metadata is None or metadata.failed:
            problem = "lacks"
        elif metadata.fingerprint != prober.states.fingerprint(index):
            problem = "has, of other traces or settings,"
        else:
            continue
        raise ValueError(
            f"{table.root} {problem} shard {index} of the baseline's columns: delete {Path(table.root).parent}, and"
            " start the study again"
        )
