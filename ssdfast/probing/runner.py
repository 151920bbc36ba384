"""The probe: two models read the same traces, and the chosen completion positions get their statistics.

A part is a number of traces, written whole: a run that was killed goes on at the first part that is missing, and ends
with the same bytes. Parts are independent of each other, so any process can make any of them: here they are shared
among the ranks of torchrun, in `ray_engine` among the actors of a cluster.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch

from .. import distributed, run_dir
from ..config import ExecutionConfig, ProbeConfig
from ..distributed import Ranks
from ..progress import progress, say
from ..sharded_table import Parts
from .model_loading import Prober
from .plan import Plan
from .shard_worker import parts_of, prepare, run_parts
from .summary import summarize

RESULTS = ("probe", "spill", "summary.json", "report.html")

Failed = list[dict[str, str]]


def probe(config: ProbeConfig, out: Path, execution: ExecutionConfig | None = None, overwrite: bool = False) -> Failed:
    """Fill `out` with config.yaml, manifest.json, probe/part-*.parquet, probe/vocabulary.json and summary.json.

    Finishes what an earlier run with the same settings left, and tries again what a model failed on; does nothing where
    all is there. Returns label, trace_id and reason of each trace that a model failed on; the others are all there.
    Raises ValueError for models that do not fit together, for traces that do not fit the models, and where another
    process is at work in `out`; RunError where the models fail on everything.
    """
    execution = execution or ExecutionConfig()
    with distributed.process_group() as team, run_dir.lock(out, team.first):
        done = team.from_first(lambda: _begin(config, out, overwrite))
        if not done:
            _run(config, out, execution, team)
        team.wait()
        return run_dir.read_json(out / "summary.json")["failed"] if team.first else []


def _begin(config: ProbeConfig, out: Path, overwrite: bool) -> bool:
    """Make `out` this run's own; True where nothing is left to do."""
    run_dir.claim(out, config, RESULTS, overwrite)
    if overwrite and config.parts:
        Parts(config.parts).clear()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    inputs = [config.baseline, config.trained, *(source.path for source in config.traces)]
    for path in inputs:
        if not Path(path).exists():
            raise ValueError(f"there is nothing at {path}: name a model or traces that exist")
    run_dir.write_manifest(out, device, config.seed, map(Path, inputs))
    summary = out / "summary.json"
    if summary.exists() and run_dir.read_json(summary)["failed"]:
        summary.unlink()
    return summary.exists()


def _run(config: ProbeConfig, out: Path, execution: ExecutionConfig, team: Ranks) -> None:
    parts = parts_of(config, out)
    prober = prepare(config, execution, out)
    plan = prober.plan
    todo = team.from_first(lambda: _missing(plan, parts, prober.spill))
    if team.first:
        _say_what_is_left_out(plan)
    if execution.engine == "ray":
        from .ray_engine import run_on_ray

        run_on_ray(config, execution, out, todo, plan)
    else:
        mine = todo[team.rank :: team.size]
        with progress("probing", 2 * sum(map(plan.tokens, mine)), "tokens", shown=team.first) as advance:
            run_parts(prober, parts, mine, advance)
    team.wait()
    if team.first:
        _finish(config, out, parts, prober)


def _missing(plan: Plan, parts: Parts, spill: Path) -> list[int]:
    """The parts to make: those not there, cut short, or with traces that a model failed on.

    Raises ValueError for a part of another run.
    """
    parts.sweep()
    run_dir.sweep(spill)
    todo = []
    for index in range(len(plan.parts)):
        try:
            notes = parts.notes(index)
        except ValueError as error:
            say(f"{error}: it is made again")
            parts.remove(index)
            notes = None
        if notes and notes.fingerprint != plan.fingerprint(index):
            raise ValueError(
                f"{parts.root} holds part {index} of a probe with other settings, other traces or another version:"
                " choose another place, or --overwrite it"
            )
        if notes is None or notes.failed:
            todo.append(index)
    return todo


def _say_what_is_left_out(plan: Plan) -> None:
    for reason, text in (
        ("overlong", "longer than the models' context"),
        ("empty", "without a completion"),
        ("without_positions", "without a position that was asked for"),
        ("not_carriers", "not drawn as carriers"),
    ):
        if count := plan.left_out.get(reason):
            say(f"{count:,} traces are {text} and are skipped")


def _finish(config: ProbeConfig, out: Path, parts: Parts, prober: Prober) -> None:
    plan = prober.plan
    texts = {str(token_id): text for token_id, text in enumerate(plan.texts) if text}
    run_dir.write_json(out / "probe" / "vocabulary.json", texts)
    failed = [failure for index in range(len(plan.parts)) for failure in _failed(parts, index)]
    summary: dict[str, Any] = summarize(parts.opened(), [source.label for source in config.traces], config.seed)
    summary |= {
        "settings": config.model_dump(mode="json"),
        "class_names": prober.classes.names,
        "ending_ids": prober.classes.ids("end_of_text", "think_close"),
        "logits": _logits(config),
        "selected": _selected(plan),
        "left_out": plan.left_out,
        "failed": failed,
    }
    run_dir.write_json(out / "summary.json", summary)
    for left in prober.spill.glob("*"):  # of a run in turn that was killed and went on with both models
        left.unlink()


def _failed(parts: Parts, index: int) -> tuple[dict[str, str], ...]:
    notes = parts.notes(index)
    return notes.failed if notes else ()


def _selected(plan: Plan) -> dict[str, Any]:
    traces = Counter(item.label for item in plan.items)
    positions = sum(item.positions for item in plan.items)
    return {"traces": dict(traces), "positions": positions, "strata": plan.strata}


def _logits(config: ProbeConfig) -> str:
    if config.dtype == "float32":
        return f"float32, of float32 operands (matmul precision {torch.get_float32_matmul_precision()!r})"
    return f"float32, of {config.dtype} operands: exact products, float32 sums"
