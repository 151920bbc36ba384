"""The probe: two models read the same traces, and the selected completion positions get their statistics.

A shard holds whole traces and is written whole: a run that was killed continues with the first missing shard, and ends
with the same bytes. Shards are independent of each other, so any process can make any of them: the ranks of torchrun
here, the actors of a cluster in `ray_engine`.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from .. import distributed, run_dir
from ..config import ExecutionConfig, ProbeConfig
from ..distributed import Ranks
from ..hub import local_path
from ..manifest import input_hashes, write_manifest
from ..progress import progress
from ..schemas import FailedTrace, ProbeSummary, write_vocabulary
from ..sharded_table import ForeignShard, ShardedTable
from ..threads import set_threads
from ..traces import traces_path
from ..trackers import check_summary_trackers, report_summary
from .model_loading import Prober
from .plan import Plan
from .position_stats import make_spec
from .recorded_sampling import Resolved, resolve_train_sampling
from .shard_worker import position_table, prepare, run_shards
from .summary import summarize

RESULTS = ("positions", "vocabulary.json", "spill", "summary.json", "report.html")

_log = logging.getLogger("ssdfast.probing")


def probe(
    config: ProbeConfig, out: Path, execution: ExecutionConfig | None = None, overwrite: bool = False
) -> list[FailedTrace]:
    """Fill `out` with config.yaml, manifest.json, positions/shard-*.parquet, vocabulary.json and summary.json.

    Finishes an earlier run with the same settings, and tries again the traces that a model failed on; does nothing for
    a complete run. Returns trace_source, trace_id and reason of each trace that a model failed on; all others are in
    the table. Raises ValueError for models that do not fit together, for traces that do not fit the models, and where
    another process works in `out`; RunError where the models fail on everything.
    """
    execution = execution or ExecutionConfig()
    check_summary_trackers(execution.report_to)
    set_threads(execution.num_threads)
    resolved = resolve_train_sampling(config, execution.on_sampling_mismatch)
    config = resolved.config
    with distributed.process_group() as team, run_dir.lock(out, team.first):
        done = team.from_first(lambda: _is_done(config, out, overwrite))
        if not done:
            _run(resolved, out, execution, team, overwrite)
        team.wait()
        return ProbeSummary.read(out / "summary.json").failed if team.first else []


def _is_done(config: ProbeConfig, out: Path, overwrite: bool) -> bool:
    """Whether nothing is left to do. Raises ValueError where `out` or the inputs cannot be used; changes nothing."""
    run_dir.check_claim(out, config, RESULTS, overwrite)
    position_table(config, out)
    for path in _inputs(config):
        if not path.exists():
            raise ValueError(f"{path} does not exist: name a model or traces that exist")
    summary = out / "summary.json"
    if overwrite or not summary.exists() or ProbeSummary.read(summary).failed:
        return False
    _claim(config, out, overwrite)
    return True


def _claim(config: ProbeConfig, out: Path, overwrite: bool) -> None:
    """Make `out` the home of this run."""
    if overwrite and config.table_dir:
        position_table(config, out).clear()
    run_dir.claim(out, config, RESULTS, overwrite)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    write_manifest(out, device, config.seed, _inputs(config))


def _inputs(config: ProbeConfig) -> list[Path]:
    models = [local_path(name) for name in (config.baseline, config.trained)]
    return [*models, *(traces_path(Path(source.path)) for source in config.traces)]


def _run(resolved: Resolved, out: Path, execution: ExecutionConfig, team: Ranks, overwrite: bool) -> None:
    config = resolved.config
    table = position_table(config, out)
    prober = prepare(config, execution, out)
    plan = prober.plan
    make_spec(prober.classes, config)

    def begin() -> list[int]:
        if resolved.warning:
            _log.warning(resolved.warning)
        _claim(config, out, overwrite)
        (out / "summary.json").unlink(missing_ok=True)  # of a run in which traces failed
        return _missing(plan, table, prober.spill)

    todo = team.from_first(begin)
    prober.baseline_hashes = input_hashes(out, local_path(config.baseline))
    if team.first:
        _log_left_out(plan)
        _log_padding(prober)
    if execution.engine == "ray":
        from .ray_engine import run_on_ray

        run_on_ray(config, execution, out, todo, plan)
    else:
        mine = todo[team.rank :: team.size]
        with progress("probing", 2 * sum(map(plan.tokens, mine)), "tokens", shown=team.first) as advance:
            run_shards(prober, table, mine, advance)
    team.wait()
    if team.first:
        _finish(config, out, table, prober, resolved.origin)
        report_summary(execution.report_to, "probe", out, ProbeSummary.read(out / "summary.json").to_json())


def _missing(plan: Plan, table: ShardedTable, spill: Path) -> list[int]:
    """The shards to make: those that are missing, truncated, or have traces that a model failed on.

    Raises ValueError for a shard of another run.
    """
    table.sweep()
    run_dir.sweep(spill)
    todo = []
    for index in range(len(plan.shards)):
        try:
            metadata = table.metadata(index)
        except ForeignShard:
            raise
        except ValueError as error:
            _log.warning("%s: it is made again", error)
            table.remove(index)
            metadata = None
        if metadata and metadata.fingerprint != plan.fingerprint(index):
            raise ValueError(
                f"{table.root} holds shard {index} of a probe with other settings, other traces or another version:"
                " choose another directory, or --overwrite it"
            )
        if metadata is None or metadata.failed:
            todo.append(index)
    return todo


def _log_left_out(plan: Plan) -> None:
    for reason, text in (
        ("too_long", "do not fit the models' context"),
        ("empty", "have no completion"),
        ("without_positions", "have no position that `positions` selects"),
        ("not_selected", "are not in the sample of max_traces"),
    ):
        if count := plan.left_out.get(reason):
            _log.info("%s traces %s and are skipped", f"{count:,}", text)


def _log_padding(prober: Prober) -> None:
    rows = [model.vocabulary for model in (prober.baseline, prober.trained)]
    if min(rows) < max(rows):
        _log.info(
            "lm_head has %s rows in the baseline and %s in the trained model: they are compared over the first %s,"
            " which hold all tokens",
            *(f"{count:,}" for count in (*rows, min(rows))),
        )


def _finish(config: ProbeConfig, out: Path, table: ShardedTable, prober: Prober, origin: str) -> None:
    """origin: where `train_sampling` comes from, as a sentence."""
    plan = prober.plan
    texts = {token_id: text for token_id, text in enumerate(plan.texts) if text}
    write_vocabulary(out / "vocabulary.json", texts)
    failed = [failure for index in range(len(plan.shards)) for failure in _failed(table, index)]
    summary: dict[str, Any] = summarize(table.shards(), [source.name for source in config.traces], config.seed)
    summary |= {
        "settings": config.model_dump(mode="json"),
        "token_classes": prober.classes.names,
        "eos_ids": prober.classes.ids("end_of_text", "think_close"),
        "logits": _logits_precision(config),
        "vocabulary": {
            "compared": len(plan.texts),
            "baseline": prober.baseline.vocabulary,
            "trained": prober.trained.vocabulary,
        },
        "selected": _selection(plan),
        "left_out": plan.left_out,
        "train_sampling_origin": origin,
        "failed": failed,
    }
    ProbeSummary.model_validate(summary).write(out / "summary.json")
    prober.remove_spill()  # of a sequential run that was killed and continued with both models


def _failed(table: ShardedTable, index: int) -> tuple[dict[str, str], ...]:
    metadata = table.metadata(index)
    return metadata.failed if metadata else ()


def _selection(plan: Plan) -> dict[str, Any]:
    traces = Counter(item.trace_source for item in plan.items)
    positions = sum(item.num_positions for item in plan.items)
    return {"traces": dict(traces), "positions": positions, "strata": plan.strata}


def _logits_precision(config: ProbeConfig) -> str:
    if config.dtype == "float32":
        return f"float32, of float32 operands (matmul precision {torch.get_float32_matmul_precision()!r})"
    return f"float32, of {config.dtype} operands: exact products, float32 sums"
