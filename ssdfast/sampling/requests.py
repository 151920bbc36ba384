"""From settings to requests: the problems, put as prompts, and the rules that hold for all of them."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..config import EngineSamplingParams, SampleConfig, SampleExecution
from ..loop_detection import LoopRule
from ..models import Outline, load, outline
from ..problems.problem import Problem
from ..problems.sources import LeftOut, load_problems
from ..progress import say
from ..prompts import Prompter
from .engine import Engine, Request, Rules, trace_seed


@dataclass(frozen=True)
class Plan:
    """What a run samples. Requests go problem by problem, all samples of one together."""

    model: Outline
    problems: dict[str, Problem]
    """those asked, by id"""
    requests: list[Request]
    rules: Rules
    left_out: dict[str, Any]
    """what was found beside the problems, JSON"""


def make_plan(config: SampleConfig) -> Plan:
    """Read the problems and the model's tokenizer, and word the prompts.

    Raises ValueError for what is wrong with either, and for a prompt that leaves no room in the model's context unless
    those are to be skipped.
    """
    loaded = load_problems(config.problems)
    return plan_for(config, loaded.problems, loaded.left_out)


def plan_for(config: SampleConfig, problems: list[Problem], left_out: LeftOut | None = None) -> Plan:
    """As `make_plan`, of problems that are there already."""
    model = outline(config.model)
    prompter = Prompter(model.tokenizer, config.prompt)
    asked: dict[str, Problem] = {}
    requests, overlong, shortened = [], [], 0
    for problem in problems:
        prompt_ids = prompter.prompt_ids(problem.question, problem.problem_id)
        room = model.context - len(prompt_ids)
        if room < 1:
            if config.on_prompt_too_long == "error":
                raise ValueError(
                    f"the prompt of {problem.problem_id} has {len(prompt_ids):,} tokens, which fills the context of"
                    f" {model.context:,} of {config.model}: leave the problem out, or set on_prompt_too_long to skip"
                )
            overlong.append(problem.problem_id)
            continue
        shortened += room < config.max_new_tokens
        asked[problem.problem_id] = problem
        most = int(min(room, config.max_new_tokens))
        requests += [
            _request(config, problem, prompt_ids, sample, most) for sample in range(config.samples_per_problem)
        ]
    if overlong:
        say(f"{len(overlong):,} problems are skipped, as their prompts fill the model's context: first {overlong[0]}")
    if shortened:
        say(
            f"the model's context of {model.context:,} tokens leaves fewer than {config.max_new_tokens:,} to"
            f" {shortened:,} of {len(asked):,} problems"
        )
    if not asked:
        raise ValueError("no problem is left to ask: every prompt fills the model's context")
    rules = Rules(config.sampling, prompter.end_ids(config.model), _loop_rule(config), config.top_logprobs)
    return Plan(model, asked, requests, rules, asdict(left_out or LeftOut()) | {"overlong": overlong})


class Engines:
    """The engine of the settings, made when it is first wanted; a context manager that closes it.

    plan: the longest that the engine will have to do.
    """

    def __init__(self, config: SampleConfig, execution: SampleExecution, plan: Plan) -> None:
        self.config, self.execution, self.plan = config, execution, plan
        self._made: Engine | None = None

    def __enter__(self) -> Engines:
        return self

    def __exit__(self, *error: object) -> None:
        if self._made:
            self._made.close()

    def ready(self, rules: Rules) -> Engine:
        """The engine, to sample by these rules. Raises ValueError for one that is not installed or does not suit."""
        self._made = self._made or make_engine(self.config, self.execution, self.plan)
        self._made.rules = rules
        return self._made


def check_sampling_params(config: SampleConfig, sampling: EngineSamplingParams) -> None:
    """Raises ValueError for sampling parameters that the engine of the settings changes or rejects."""
    if config.engine != "transformers":
        from .vllm import check_sampling_params

        check_sampling_params(sampling)


def make_engine(config: SampleConfig, execution: SampleExecution, plan: Plan) -> Engine:
    """The engine of the settings, ready. Raises ValueError for one that is not installed or does not suit the plan."""
    if config.engine == "server":
        from .server_client import ServerEngine

        return ServerEngine(execution.server, plan.model.tokenizer, plan.model.vocabulary, plan.rules)
    dtype = config.dtype
    if dtype == "auto":
        dtype = "bfloat16" if torch.cuda.is_available() else "float32"
    if config.engine == "vllm":
        from .vllm import VllmEngine

        longest = max(len(request.prompt_ids) + request.max_new_tokens for request in plan.requests)
        return VllmEngine(config.model, execution.vllm, plan.rules, dtype, longest)
    from .transformers import TransformersEngine

    return TransformersEngine(load(config.model, dtype), plan.rules, execution.batch_size)


def inputs_of(config: SampleConfig) -> list[Path]:
    """The files and directories that a run is made from."""
    named = [
        config.model,
        *config.problems.sources,
        *config.problems.decontaminate_against,
        config.prompt.chat_template,
    ]
    return [path for path in map(Path, filter(None, named)) if path.exists()]


def _request(config: SampleConfig, problem: Problem, prompt_ids: list[int], sample: int, most: int) -> Request:
    name = problem.problem_id
    audited = _share(f"audit/{config.seed}/{name}#{sample}") < config.loops.audit_fraction
    return Request(name, prompt_ids, trace_seed(config.seed, name, sample), most, sample, audited)


def _share(name: str) -> float:
    """A number in [0, 1) that the name decides."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def _loop_rule(config: SampleConfig) -> LoopRule | None:
    min_repeats = config.loop_min_repeats
    return LoopRule(min_repeats, config.loops.min_tokens, config.loops.max_period) if min_repeats else None
