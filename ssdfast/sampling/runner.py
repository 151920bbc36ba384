"""Sampling: one completion or more of each problem, from a frozen model, none lost and none twice.

Every trace is on disk as soon as it is finished. A run that was stopped, killed or out of disk goes on with the traces
that are missing; on transformers in float32 it ends with the ids of an undisturbed one.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from .. import run_dir
from ..config import SampleConfig, SampleExecution
from ..problems.problem import Problem, read_problems, write_problems
from ..progress import progress
from ..traces import SCHEMA
from .engine import Completion, Engine
from .requests import Engines, Plan, inputs_of, make_plan
from .run_stats import Speed, remark, summarize
from .trace_store import TraceStore

RESULTS = ("traces", "problems.jsonl", "sampling.json")


def sample(
    config: SampleConfig, out: Path, execution: SampleExecution | None = None, overwrite: bool = False
) -> dict[str, Any]:
    """Fill `out` with config.yaml, manifest.json, problems.jsonl, traces/part-*.parquet and sampling.json.

    Finishes what an earlier run with the same settings left, and tries again what failed; loads no model where all is
    there. Returns what sampling.json holds: counts of traces, tokens, finish reasons and loops, what was left out of
    the problems, and the first failure.
    Raises ValueError for settings, problems or a model that will not do, and where another process is at work in `out`;
    RunError where the engine fails as a whole.
    """
    with run_dir.lock(out):
        run_dir.claim(out, config, RESULTS, overwrite)
        plan = make_plan(config)
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        run_dir.write_manifest(out, device, config.seed, inputs_of(config))
        kept = out / "problems.jsonl"
        with Engines(config, execution or SampleExecution(), plan) as engines:
            first_failure = fill(plan, engines, out / "traces", "sampling", kept)
        found = summarize(out / "traces") | {"left_out": plan.left_out, "first_failure": first_failure}
        run_dir.write_json(out / "sampling.json", found)
        return found


def fill(plan: Plan, engines: Engines, directory: Path, what: str, problems_file: Path | None = None) -> str:
    """Sample what `directory` lacks of the plan's traces; returns why the first of them failed, "" where none did.

    problems_file: where to keep the problems, for whoever judges the traces. Nothing is written before the engine is
    ready. Raises ValueError where other problems were asked before.
    """
    store = TraceStore(directory, [(request.problem_id, request.sample) for request in plan.requests])
    if problems_file and problems_file.exists():
        check_same_problems(problems_file, plan.problems)
    try:
        if not store.todo:
            return ""
        engine = engines.ready(plan.rules)
        if problems_file:
            write_problems(problems_file, plan.problems.values())
        return _run(plan, engine, store, what)
    finally:
        store.close()


def _run(plan: Plan, engine: Engine, store: TraceStore, what: str) -> str:
    requests = [plan.requests[place] for place in store.todo]
    done = len(plan.requests) - len(requests)
    speed, failure = Speed(), ""
    with progress(what, len(plan.requests), "traces", done) as advance:
        advance.note = lambda: remark(speed, store.counts)

        def drawn(tokens: int) -> None:
            speed.add(tokens)
            advance(0)

        with contextlib.closing(engine.complete(requests, drawn)) as completions:
            for completion in completions:
                store.add(trace_row(completion, plan, engine.name))
                failure = failure or (completion.reason and f"{completion.request.problem_id}: {completion.reason}")
                advance(1)
    return failure


def trace_row(completion: Completion, plan: Plan, engine: str) -> pa.RecordBatch:
    """One trace in SCHEMA."""
    request, ids = completion.request, completion.ids
    problem = plan.problems[request.problem_id]
    row: dict[str, Any] = {
        "problem_id": request.problem_id,
        "sample": request.sample,
        "prompt_ids": request.prompt_ids,
        "completion_ids": ids,
        "finish_reason": completion.finish_reason,
        "seed": request.seed,
        "engine": engine,
        **plan.rules.sampling.model_dump(),
        "loop_at": completion.loop_at,
        "source": problem.source,
        "difficulty": problem.difficulty,
        "text": _text(plan, ids),
        "note": completion.reason,
    }
    arrays = [
        _nested(getattr(completion, field.name), field.type)
        if field.name in ("top_ids", "top_logprobs")
        else pa.array([row[field.name]], field.type)
        for field in SCHEMA
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _text(plan: Plan, ids: list[int]) -> str:
    """With control tokens, that of a thinking part among them, but for the end of text."""
    shown = ids[:-1] if ids and ids[-1] in plan.rules.end_ids else ids
    return plan.model.tokenizer.decode(shown, skip_special_tokens=False)


def _nested(values_LK: np.ndarray | None, kind: pa.DataType) -> pa.Array:
    """An array of one row, [tokens, K] inside; without a Python object a number."""
    if values_LK is None:
        return pa.nulls(1, kind)
    length, k = values_LK.shape
    steps = pa.array(np.arange(length + 1, dtype=np.int32) * k)
    inner = pa.ListArray.from_arrays(steps, pa.array(values_LK.reshape(-1), kind.value_type.value_type))
    return pa.ListArray.from_arrays(pa.array([0, length], pa.int32()), inner).cast(kind)


def check_same_problems(path: Path, now: dict[str, Problem]) -> None:
    """Raises ValueError that names the first problem of a file that is not what it is now."""
    before = {problem.problem_id: problem for problem in read_problems(path)}
    for name in [*before, *now]:
        if before.get(name) != now.get(name):
            what = "is new" if name not in before else "is gone" if name not in now else "has changed"
            raise ValueError(f"problem {name} {what} since {path} was written: choose another --out, or --overwrite it")
