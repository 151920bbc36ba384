"""The inputs of an evaluation: its problems, its files, and the plans of its checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from ..config import EvalConfig
from ..evaluation.completions import problems_beside, problems_file, trace_files
from ..problems.problem import Problem
from ..problems.sources import load_problems
from ..sampling.requests import Plan, input_files
from ..selected_shard import with_sources


def read_problems(config: EvalConfig) -> tuple[list[Problem], set[str]]:
    """The problems of the settings or else those beside the completions; and the ids of repeated problems."""
    if config.problems.sources:
        loaded = load_problems(config.problems)
        pairs = [*loaded.skipped.duplicates, *((a, b) for a, b, _ in loaded.skipped.near_duplicates)]
        return loaded.problems, {skipped for _, skipped in pairs} - {p.problem_id for p in loaded.problems}
    if config.models:
        raise ValueError("problems.sources is empty: name the problems of the evaluation")
    problems: dict[str, Problem] = {}
    for source in config.completions:
        for problem in problems_beside(Path(source.path), config.problems):
            before = problems.setdefault(problem.problem_id, problem)
            if (before.question, before.answer) != (problem.question, problem.answer):
                raise ValueError(
                    f"{source.path}: problem {problem.problem_id} has another question or answer than in an earlier"
                    " file: name the right ones in problems.sources"
                )
    return list(problems.values()), set()


def evaluation_files(config: EvalConfig) -> Iterator[Path]:
    """The files and directories that an evaluation reads. Raises ValueError for missing completions."""
    for model in config.models:
        yield from input_files(config.sample_config(model.path))
    yield from (path for path in map(Path, config.problems.sources) if path.exists())
    for source in config.completions:
        path = Path(source.path)
        if not path.exists():
            raise ValueError(f"there are no completions at {path}: name a run, a directory of traces, or a file")
        yield from [path] if path.suffix.lower() == ".jsonl" else with_sources(trace_files(path))
        beside = problems_file(path)
        if beside and path.suffix.lower() != ".jsonl" and not config.problems.sources:
            yield beside


def restrict_plan(plan: Plan, problem_ids: list[str]) -> Plan:
    """The plan for these problems alone, in this order."""
    requests: dict[str, list] = {name: [] for name in problem_ids}
    for request in plan.requests:
        if request.problem_id in requests:
            requests[request.problem_id].append(request)
    return dataclasses.replace(
        plan,
        problems={name: plan.problems[name] for name in problem_ids},
        requests=list(chain(*requests.values())),
    )


def check_same_prompts(plans: dict[str, Plan]) -> None:
    """Raises ValueError where two plans have different prompts for a problem, before anything is sampled."""
    first: dict[str, tuple[str, list[int]]] = {}
    for checkpoint, plan in plans.items():
        for request in plan.requests:
            owner, prompt_ids = first.setdefault(request.problem_id, (checkpoint, request.prompt_ids))
            if prompt_ids != request.prompt_ids:
                raise ValueError(
                    f"the prompt of {request.problem_id} has other tokens for {checkpoint} than for {owner}, by its own"
                    " tokenizer or chat template: give both --prompt.chat-template, or compare all the same with"
                    " --on-prompt-mismatch allow"
                )
