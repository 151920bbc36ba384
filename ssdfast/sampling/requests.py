"""From settings to requests: the problems as prompts, and the rules that hold for all of them."""

from __future__ import annotations

import hashlib
import logging
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..config import EngineSamplingParams, SampleConfig, SampleExecution
from ..hub import local_path
from ..loop_detection import LoopRule
from ..models import ModelInfo, load, model_info
from ..problems.problem import Problem
from ..problems.sources import SkippedProblems, load_problems
from ..processor import fast_dtype
from ..prompts import Prompter
from ..threads import free_cores_only
from .engine import Engine, Request, Rules, trace_seed

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What a run samples. Requests go problem by problem, with all samples of a problem together."""

    model: ModelInfo
    problems: dict[str, Problem]
    """The problems that are sampled, by id."""
    requests: list[Request]
    rules: Rules
    skipped_problems: dict[str, Any]
    """The problems that were skipped and why, as JSON."""


def make_plan(config: SampleConfig) -> Plan:
    """Read the problems and the model's tokenizer, and word the prompts.

    Raises ValueError for errors in either, and for a prompt that leaves no room in the model's context unless such
    problems are skipped.
    """
    loaded = load_problems(config.problems)
    return plan_for(config, loaded.problems, loaded.skipped)


def plan_for(config: SampleConfig, problems: list[Problem], skipped: SkippedProblems | None = None) -> Plan:
    """As `make_plan`, with problems that are already loaded."""
    model = model_info(config.model)
    prompter = Prompter(model.tokenizer, config.prompt)
    by_id: dict[str, Problem] = {}
    requests: list[Request] = []
    prompt_too_long: list[str] = []
    shortened = 0
    for problem in problems:
        prompt_ids = prompter.prompt_ids(problem.question, problem.problem_id)
        _check_prompt(prompt_ids, model, problem.problem_id)
        room = model.context - len(prompt_ids)
        if room < 1:
            if config.on_prompt_too_long == "error":
                raise ValueError(
                    f"the prompt of {problem.problem_id} has {len(prompt_ids):,} tokens, which fills the context of"
                    f" {model.context:,} of {config.model}: remove the problem, or set on_prompt_too_long to skip"
                )
            prompt_too_long.append(problem.problem_id)
            continue
        shortened += room < config.max_new_tokens
        by_id[problem.problem_id] = problem
        limit = int(min(room, config.max_new_tokens))
        samples = range(config.samples_per_problem)
        requests += [_request(config, problem, prompt_ids, sample, limit) for sample in samples]
    if prompt_too_long:
        _log.warning(
            "%s problems are skipped because their prompts fill the model's context; the first is %s",
            f"{len(prompt_too_long):,}",
            prompt_too_long[0],
        )
    if shortened:
        _log.warning(
            "the model's context of %s tokens leaves fewer than %s for the completions of %s of %s problems",
            f"{model.context:,}",
            f"{config.max_new_tokens:,}",
            f"{shortened:,}",
            f"{len(by_id):,}",
        )
    if not by_id:
        raise ValueError(
            "every prompt fills the model's context: use shorter problems or a model with a longer context"
        )
    rules = Rules(config.sampling, prompter.end_ids(config.model), _loop_rule(config), config.top_logprobs)
    return Plan(
        model, by_id, requests, rules, asdict(skipped or SkippedProblems()) | {"prompt_too_long": prompt_too_long}
    )


def _check_prompt(prompt_ids: list[int], model: ModelInfo, name: str) -> None:
    """Raises ValueError for a token that the model has no embedding of."""
    if (largest := max(prompt_ids)) >= model.vocabulary:
        token = model.tokenizer.convert_ids_to_tokens(largest)
        raise ValueError(
            f"the prompt of {name} holds token id {largest} ({token!r}), and the embedding of {model.path} has"
            f" {model.vocabulary} rows: use the tokenizer that the model was trained with"
        )


class LazyEngine:
    """The engine of the settings, which is loaded when it is first needed. A context manager that closes it.

    While the transformers engine is loaded, torch leaves alone the cores that others use.
    plan: the plan with the longest requests that the engine will get.
    """

    def __init__(self, config: SampleConfig, execution: SampleExecution, plan: Plan) -> None:
        self.config, self.execution, self.plan = config, execution, plan
        self.load_seconds = 0.0
        """how long the engine took to load; 0 before"""
        self._engine: Engine | None = None
        self._open = ExitStack()

    def __enter__(self) -> LazyEngine:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def ready(self, rules: Rules) -> Engine:
        """The engine with these rules. Raises ValueError for one that is not installed or does not fit the plan."""
        if not self._engine:
            begun = time.monotonic()
            self._engine = make_engine(self.config, self.execution, self.plan)
            self.load_seconds = time.monotonic() - begun
            self._open.callback(self._engine.close)
            if self.config.engine == "transformers":
                self._open.enter_context(free_cores_only(self.execution.num_threads))
        self._engine.rules = rules
        return self._engine


def check_sampling_params(config: SampleConfig, sampling: EngineSamplingParams) -> None:
    """Raises ValueError for sampling parameters that the engine of the settings changes or rejects."""
    if config.engine != "transformers":
        from .vllm import check_sampling_params

        check_sampling_params(sampling)


def make_engine(config: SampleConfig, execution: SampleExecution, plan: Plan) -> Engine:
    """Load the engine of the settings. Raises ValueError for one that is not installed or does not fit the plan."""
    if config.engine == "server":
        from .server_client import ServerEngine

        return ServerEngine(execution.server, plan.model.tokenizer, plan.model.vocabulary, plan.rules)
    dtype = fast_dtype() if config.dtype == "auto" else config.dtype
    if config.dtype == "auto" and dtype == "bfloat16" and not torch.cuda.is_available():
        _log.info(
            "this CPU has a matrix unit for bfloat16: sampling in it, --dtype float32 draws the same in any batch"
        )
    if config.engine == "vllm":
        from .vllm import VllmEngine

        longest = max(len(request.prompt_ids) + request.max_new_tokens for request in plan.requests)
        return VllmEngine(str(local_path(config.model)), execution.vllm, plan.rules, dtype, longest)
    from .transformers import TransformersEngine

    return TransformersEngine(load(config.model, dtype), plan.rules, execution.batch_size)


def input_files(config: SampleConfig) -> list[Path]:
    """The files and directories that a run reads."""
    problems = config.problems
    names = [*problems.sources, *problems.decontaminate_against, config.prompt.chat_template]
    return [path for path in (local_path(config.model), *map(Path, filter(None, names))) if path.exists()]


def _request(config: SampleConfig, problem: Problem, prompt_ids: list[int], sample: int, limit: int) -> Request:
    name = problem.problem_id
    audited = _uniform(f"audit/{config.seed}/{name}#{sample}") < config.loops.audit_fraction
    return Request(name, prompt_ids, trace_seed(config.seed, name, sample), limit, sample, audited)


def _uniform(name: str) -> float:
    """A number in [0, 1) that depends on the name only."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def _loop_rule(config: SampleConfig) -> LoopRule | None:
    min_repeats = config.loop_min_repeats
    return LoopRule(min_repeats, config.loops.min_tokens, config.loops.max_period) if min_repeats else None
