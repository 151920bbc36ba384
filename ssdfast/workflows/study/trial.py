"""The pace of a study's stages before any has run: seconds per token, from a short trial with its own model.

Sampling is tried with the study's prompts; training and probing with traces of random tokens, whose arithmetic is that
of any others of their length.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa

from ... import traces
from ...config import EngineSamplingParams, ExecutionConfig, NamedPath, ProbeConfig, SampleConfig, TrainingRunConfig
from ...sampling.estimate import measure_speed as measure_sampling
from ...sampling.requests import Plan, make_plan
from .stages import Stages

_TRACES, _TOKENS = 16, 256


def measure(stages: Stages, kinds: Collection[str]) -> dict[str, float]:
    """Seconds per token of these kinds of stages, among sample, eval, train and probe. Nothing is kept."""
    config, paces = stages.config, {}
    if not kinds:
        return {}
    sampling = SampleConfig(
        model=stages.model, problems=config.train_problems, prompt=config.prompt, engine=config.engine,
        sampling=config.train_sampling, max_new_tokens=config.train_max_new_tokens,
    )  # fmt: skip
    plan = make_plan(sampling)
    if sampled := {"sample", "eval"} & set(kinds):
        paces |= dict.fromkeys(sampled, 1 / measure_sampling(sampling, stages.execution.engine_args, plan))
    with tempfile.TemporaryDirectory() as directory:
        prompt_tokens, tokens = _write_traces(Path(directory), plan, config.train_sampling)
        if "train" in kinds:
            from ...training.runner import measure_speed

            # Labels are recomputed nowhere, so that the sampled loss stands for both: a soft label costs little.
            settings = config.training.model_dump() | {"loss": "sampled"}
            training = TrainingRunConfig(model=stages.model, traces=directory, **settings)
            paces["train"] = (prompt_tokens + tokens) / tokens / measure_speed(training)
        if "probe" in kinds:
            from ...probing.estimate import estimate

            source = NamedPath(name="trial", path=directory)
            probe = ProbeConfig(baseline=stages.model, trained=stages.model, traces=(source,))
            found = estimate(probe, ExecutionConfig(on_sampling_mismatch="allow"))
            paces["probe"] = (found.seconds_forward + found.seconds_statistics) / (2 * tokens)
    return paces


def _write_traces(directory: Path, plan: Plan, sampling: EngineSamplingParams) -> tuple[int, int]:
    """Traces of random tokens after the plan's own prompts; returns the tokens of prompts and of completions."""
    rng = np.random.default_rng(0)
    vocabulary = len(plan.model.tokenizer)
    requests = plan.requests[:_TRACES]
    completions = [rng.integers(0, vocabulary, min(_TOKENS, request.max_new_tokens)) for request in requests]
    table = pa.table(
        {
            "problem_id": pa.array([f"trial-{i}" for i in range(len(requests))]),
            "sample": pa.array([0] * len(requests), pa.int32()),
            "prompt_ids": pa.array([request.prompt_ids for request in requests], pa.list_(pa.int32())),
            "completion_ids": pa.array(completions, pa.list_(pa.int32())),
            "finish_reason": ["length"] * len(requests),
            **{name: [value] * len(requests) for name, value in sampling.model_dump().items()},
        }
    )
    traces.write_shard(directory, 0, table)
    return sum(len(request.prompt_ids) for request in requests), sum(map(len, completions))
