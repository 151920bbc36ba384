"""Sampling: one or more completions of each problem from a frozen model. No trace is lost or sampled twice.

Every trace is on disk as soon as it is finished. A run that was stopped or killed, or that ran out of disk, continues
with the missing traces; with transformers in float32 its ids are those of an uninterrupted run.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .. import run_dir
from ..config import SampleConfig, SampleExecution
from ..manifest import write_manifest
from ..problems.problem import Problem, read_problems, write_problems
from ..processor import device_name
from ..progress import progress
from ..schemas import SamplingSummary
from ..trace_checks import PaddingIds
from ..traces import SCHEMA
from ..trackers import check_summary_trackers, report_summary
from .engine import Completion, Engine
from .forecast import Forecast
from .requests import LazyEngine, Plan, input_files, make_plan
from .run_stats import format_progress, summarize
from .trace_store import TraceStore

RESULTS = ("traces", "problems.jsonl", "sampling.json")
GROWING = ("samples_per_problem", "max_new_tokens")
"""The settings with which a run that is larger draws what is missing."""


def sample(
    config: SampleConfig, out: Path, execution: SampleExecution | None = None, overwrite: bool = False
) -> SamplingSummary:
    """Fill `out` with config.yaml, manifest.json, problems.jsonl, traces/shard-*.parquet and sampling.json.

    Continues an earlier run with the same settings and retries what failed; loads no model if nothing is missing. With
    more samples per problem it draws those alone; with a larger maximum length, it draws truncated traces again.
    Returns the content of sampling.json: counts of traces, tokens, finish reasons and loops, the skipped problems, and
    the first failure.
    Raises ValueError for invalid settings, problems or models, and where another process works in `out`; RunError where
    the engine fails as a whole.
    """
    execution = execution or SampleExecution()
    check_summary_trackers(execution.report_to)
    with run_dir.lock(out):
        run_dir.check_claim(out, config, RESULTS, overwrite, growing=GROWING)
        plan = make_plan(config)
        with LazyEngine(config, execution, plan) as engine:
            if overwrite:
                engine.ready(plan.rules)  # before anything is removed
            run_dir.claim(out, config, RESULTS, overwrite, growing=GROWING)
            write_manifest(out, device_name(), config.seed, input_files(config))
            first_failure = fill(plan, engine, out / "traces", "sampling", out / "problems.jsonl")
        counts = summarize(out / "traces")
        summary = SamplingSummary(**counts, skipped_problems=plan.skipped_problems, first_failure=first_failure)
        summary.write(out / "sampling.json")
        report_summary(execution.report_to, "sample", out, summary.to_json())
        return summary


def fill(
    plan: Plan,
    lazy_engine: LazyEngine,
    directory: Path,
    what: str,
    problems_file: Path | None = None,
    runs_after: int = 0,
    models_after: int = 0,
) -> str:
    """Sample the traces of the plan that `directory` lacks; returns the reason of the first failure, "" for none.

    runs_after, models_after: how many runs like this one follow, and how many models to load, which the time left
    counts.
    problems_file: the file that the problems are written to, for grading. Nothing is written before the engine is
    ready. Raises ValueError where an earlier run had other problems.
    """
    keys = [(request.problem_id, request.sample) for request in plan.requests]
    store = TraceStore(directory, keys, [request.max_new_tokens for request in plan.requests])
    if problems_file and problems_file.exists():
        check_same_problems(problems_file, plan.problems)
    try:
        if not store.todo:
            return ""
        engine = lazy_engine.ready(plan.rules)
        if problems_file:
            write_problems(problems_file, plan.problems.values())
        return _run(plan, engine, store, what, runs_after, models_after * lazy_engine.load_seconds)
    finally:
        store.close()


def _run(plan: Plan, engine: Engine, store: TraceStore, what: str, runs_after: int, loading_after: float) -> str:
    requests = [plan.requests[place] for place in store.todo]
    done = len(plan.requests) - len(requests)
    forecast, failure = Forecast([request.max_new_tokens for request in requests], engine.capacity), ""
    padding = PaddingIds(plan.model.tokenizer)
    with progress(what, len(plan.requests), "traces", done) as advance:
        advance.note = lambda: format_progress(forecast.speed, store.counts)

        def seconds_left() -> float | None:
            left = forecast.seconds_left()
            return None if left is None else left + runs_after * (forecast.speed.seconds + left) + loading_after

        def on_tokens(tokens: int) -> None:
            forecast.add_tokens(tokens)
            advance(0)

        advance.seconds_left = seconds_left

        with contextlib.closing(engine.complete(requests, on_tokens)) as completions:
            for completion in completions:
                forecast.finish(completion)
                store.add(trace_row(completion, plan, engine.name))
                padding.add(completion.ids)
                failure = failure or (completion.reason and f"{completion.request.problem_id}: {completion.reason}")
                advance(1)
    padding.warn(plan.model.path)
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
    """The text with all control tokens, such as those of a thinking part, except the end of text."""
    before_end = ids[:-1] if ids and ids[-1] in plan.rules.end_ids else ids
    return plan.model.tokenizer.decode(before_end, skip_special_tokens=False)


def _nested(values_LK: np.ndarray | None, kind: pa.DataType) -> pa.Array:
    """An array of one row that holds [tokens, K], made without a Python object per number."""
    if values_LK is None:
        return pa.nulls(1, kind)
    length, k = values_LK.shape
    steps = pa.array(np.arange(length + 1, dtype=np.int32) * k)
    inner = pa.ListArray.from_arrays(steps, pa.array(values_LK.reshape(-1), kind.value_type.value_type))
    return pa.ListArray.from_arrays(pa.array([0, length], pa.int32()), inner).cast(kind)


def check_same_problems(path: Path, now: dict[str, Problem]) -> None:
    """Raises ValueError that names the first problem that differs between a file and now."""
    before = {problem.problem_id: problem for problem in read_problems(path)}
    for name in [*before, *now]:
        if before.get(name) != now.get(name):
            what = "is new" if name not in before else "is gone" if name not in now else "has changed"
            raise ValueError(f"problem {name} {what} since {path} was written: choose another --out, or --overwrite it")
