"""The probe: two models read the same traces, and the selected completion positions get their statistics.

A shard holds whole traces and is written whole: a run that was killed continues with the first missing shard, and ends
with the same bytes. Shards are independent of each other, so any process can make any of them: the ranks of torchrun
here, the actors of a cluster in `ray_engine`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .. import distributed, run_dir
from ..config import ExecutionConfig, ManyProbesConfig, ProbeConfig
from ..distributed import Ranks
from ..hub import local_path
from ..manifest import input_hashes
from ..progress import progress
from ..schemas import FailedTrace, ProbeSummary, write_vocabulary
from ..sharded_table import ShardedTable
from ..threads import set_threads
from ..trackers import check_summary_trackers, report_summary
from .baseline_columns import check_baseline
from .model_loading import Prober
from .plan import Plan
from .position_stats import make_spec
from .run import Run
from .shard_worker import fingerprint, prepare, run_shards, unfinished
from .summary import summarize
from .targets import Target

_log = logging.getLogger("ssdfast.probing")


def probe(
    config: ProbeConfig | ManyProbesConfig,
    out: Path,
    execution: ExecutionConfig | None = None,
    overwrite: bool = False,
    baseline: Path | None = None,
) -> list[FailedTrace]:
    """Fill `out` with config.yaml, manifest.json, positions/shard-*.parquet, vocabulary.json and summary.json.

    Several models share the pass of the baseline and its columns: models/baseline/positions has these, and models/NAME
    config.yaml, manifest.json, summary.json and the columns of each trained model in positions. A model that is added
    later is the only one that is computed; the baseline reads the traces again unless `execution.baseline_states` keeps
    its hidden states.

    One model can do the same beside others in directories of their own: `baseline` is a directory beside `out` that
    `probe_baseline` has filled, and `out` then has the trained model's own columns.

    Finishes an earlier run with the same settings, and tries again the traces that a model failed on; does nothing for
    a complete run. Returns trace_source, trace_id and reason of each trace that a model failed on; all others are in
    the table. Raises ValueError for models that do not fit together, for traces that do not fit the models, and where
    another process works in `out`; RunError where the models fail on everything.
    """
    execution = execution or ExecutionConfig()
    check_summary_trackers(execution.report_to)
    set_threads(execution.num_threads)
    run = Run.of(config, out, execution, baseline)
    with distributed.process_group() as team, run_dir.lock(out, team.first):
        done = team.from_first(lambda: run.is_done(overwrite))
        if not done:
            _make(run, team, overwrite)
        team.wait()
        summaries = [ProbeSummary.read(target.directory / "summary.json") for target in run.targets if team.first]
        return [failure for summary in summaries for failure in summary.failed]


def _make(run: Run, team: Ranks, overwrite: bool) -> None:
    prober = prepare(run.targets, run.execution, run.out)
    plan = prober.plan
    make_spec(prober.classes, run.targets[0].config)

    def begin() -> tuple[dict[str, str], dict[str, list[int]]]:
        for warning in dict.fromkeys(resolved.warning for resolved in run.resolved.values() if resolved.warning):
            _log.warning(warning)
        run.claim(overwrite)
        for target in run.targets:
            (target.directory / "summary.json").unlink(missing_ok=True)  # of a run in which traces failed
        run_dir.sweep(prober.states.spill)
        prober.states.hashes = input_hashes(run.out, local_path(run.config.baseline))
        shared = run.targets[0].baseline
        if shared and not run.is_many:
            check_baseline(prober, shared)
        of_baseline = unfinished(plan, shared, prober.states.fingerprint) if shared and run.is_many else set()
        return prober.states.hashes, {
            target.name: sorted(of_baseline | unfinished(plan, target.table, partial(fingerprint, plan, target)))
            for target in run.targets
        }

    prober.states.hashes, todo = team.from_first(begin)
    if team.first:
        _log_left_out(plan)
        _log_padding(prober)
        _log_second_pass(prober, todo)
    if run.execution.engine == "ray":
        from .ray_engine import run_on_ray

        run_on_ray(prober, run.out, todo)
    else:
        every = sorted({index for indices in todo.values() for index in indices})
        mine = set(every[team.rank :: team.size])
        own = {name: [index for index in indices if index in mine] for name, indices in todo.items()}
        passes = [*mine, *(index for indices in own.values() for index in indices)]
        with progress("probing", sum(map(plan.tokens, passes)), "tokens", shown=team.first) as advance:
            run_shards(prober, own, advance)
    team.wait()
    if team.first:
        _finish(run, prober)


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
    rows = [prober.baseline.vocabulary, *(target.trained.vocabulary for target in prober.targets)]
    compared = len(prober.plan.texts)
    if compared < max(rows):
        _log.info(
            "lm_head has %s rows in the baseline and %s in the trained model: they are compared over the first %s,"
            " which hold all tokens",
            f"{rows[0]:,}", " and ".join(f"{count:,}" for count in dict.fromkeys(rows[1:])), f"{compared:,}",
        )  # fmt: skip


def _log_second_pass(prober: Prober, todo: Mapping[str, list[int]]) -> None:
    """Where models are added to others, and the baseline's hidden states were not kept."""
    table = prober.targets[0].baseline
    every = {index for indices in todo.values() for index in indices}
    was_read = table is not None and len(table.files()) == len(prober.plan.shards)
    if was_read and every and not any(map(prober.states.are_there, every)):
        remedy = "" if prober.execution.baseline_states else ": --baseline-states DIRECTORY keeps what it has read"
        _log.info("the baseline reads the traces again%s", remedy)


def _finish(run: Run, prober: Prober) -> None:
    if not (run.out / "vocabulary.json").exists():
        texts = {token_id: text for token_id, text in enumerate(prober.plan.texts) if text}
        write_vocabulary(run.out / "vocabulary.json", texts)
    for target in run.targets:
        _summarize(target, prober, run.resolved[target.name].origin)
        report_summary(
            run.execution.report_to, "probe", target.directory,
            ProbeSummary.read(target.directory / "summary.json").to_json(),
        )  # fmt: skip
    prober.states.remove()  # of a sequential run that was killed and continued with both models


def _summarize(target: Target, prober: Prober, origin: str) -> None:
    """origin: where `train_sampling` comes from, as a sentence."""
    config, plan, table = target.config, prober.plan, target.table
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
            "trained": target.trained.vocabulary,
        },
        "selected": _selection(plan),
        "left_out": plan.left_out,
        "train_sampling_origin": origin,
        "failed": failed,
    }
    ProbeSummary.model_validate(summary).write(target.directory / "summary.json")


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
