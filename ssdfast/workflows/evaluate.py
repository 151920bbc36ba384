"""``ssdfast eval``: sample checkpoints at every decoding of a sweep, or take completions that exist; judge and compare.

Traces of each arm are in traces/CHECKPOINT/DECODING, verdicts in eval/samples.parquet, figures in eval/results.json and
eval/*.svg. A run that was stopped goes on with the traces that are missing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from .. import run_dir
from ..config import EvalConfig, EvalExecution, NamedPath
from ..evaluation.comparisons import compared
from ..evaluation.completions import problems_beside, problems_file, read, trace_files
from ..evaluation.diagnostics import prompt_opens
from ..evaluation.extract import ExtractionRules
from ..evaluation.grader_pool import Checkers
from ..evaluation.grading import check_golds
from ..evaluation.libraries import check_installed
from ..evaluation.plots import draw
from ..evaluation.runs import Arm, setting_of
from ..evaluation.samples import Group, by_arm, check_problems, check_prompts, check_thinking, examined, judged
from ..evaluation.stats.power import ALPHA
from ..evaluation.stats.sequential import PairedSequence
from ..evaluation.stats.subsets import subset
from ..evaluation.summary import outcomes_of, summary_of
from ..problems.problem import Problem, write_problems
from ..problems.sources import load_problems
from ..progress import say
from ..run_dir import RunError
from ..sampling.estimate import of_plan
from ..sampling.requests import Engines, Plan, check_sampling_params, inputs_of, plan_for
from ..sampling.runner import check_same_problems, fill

RESULTS = ("traces", "eval", "problems.jsonl")
_TAIL = 64
"""tokens of a prompt's end, where a thinking part would be opened"""


def evaluate(
    config: EvalConfig, out: Path, execution: EvalExecution | None = None, overwrite: bool = False
) -> dict[str, Any]:
    """Fill `out`; returns what eval/results.json holds. Does nothing more where that is there.

    Raises ValueError for settings, problems, models or completions that will not do, naming file, line and problem;
    RunError where traces failed, which the same command tries again.
    """
    config.check()
    check_installed()
    with run_dir.lock(out):
        run_dir.claim(out, config, RESULTS, overwrite)
        return _Evaluation(config, out, execution or EvalExecution()).run()


def estimate(config: EvalConfig, execution: EvalExecution, out: Path) -> str:
    """What sampling each checkpoint at all decodings may take, from a short trial. Nothing is written."""
    config.check()
    if not config.models:
        raise ValueError("there is nothing to sample: completions that exist are judged in seconds")
    evaluation = _Evaluation(config, out, execution)
    evaluation.prepare()
    told = []
    for model in config.models:
        directories = [out / "traces" / Arm(model.name, setting_of(one)).directory for one in config.decodings]
        plan = evaluation.plans[model.name]
        told += [model.name, str(of_plan(plan, config.sampling_of(model.path), execution, directories))]
    return "\n".join(told)


class _Evaluation:
    def __init__(self, config: EvalConfig, out: Path, execution: EvalExecution) -> None:
        self.config, self.out, self.execution = config, out, execution
        self.plans: dict[str, Plan] = {}

    def prepare(self) -> None:
        """Read problems and tokenizers; what can be refused is refused here."""
        for decoding in self.config.decodings if self.config.models else ():
            check_sampling_params(self.config.sampling_of(""), decoding)
        problems, self.aliases = _problems(self.config)
        if self.config.budget > len(problems):
            raise ValueError(
                f"a --budget of {self.config.budget:,} is more than the {len(problems):,} problems there are"
            )
        self.all_problems = {problem.problem_id: problem for problem in problems}
        self.problems = self._asked(problems)
        if len(self.problems) < 2 and len(self.config.models) + len(self.config.completions) > 1:
            raise ValueError("a comparison over 1 problem says nothing: evaluate at least 2, or a single checkpoint")

    def run(self) -> dict[str, Any]:
        config = self.config
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        run_dir.write_manifest(self.out, device, config.seed, dict.fromkeys(_inputs(config)))
        if (self.out / "eval" / "results.json").exists():
            found: dict[str, Any] = run_dir.read_json(self.out / "eval" / "results.json")
            return found
        self.prepare()
        with Checkers(self.execution.checkers or None, self.execution.check_seconds) as self.checkers:
            check_golds(list(self.problems.values()), self.checkers)
            self._keep_problems()
            if config.sequential.margin:
                table, sequences = self._sequential()
                return self._conclude(table, {}, sequences)
            groups = [*chain(*map(self._sampled, config.models)), *chain(*map(self._given, config.completions))]
            check_problems(groups, self.problems, config.uneven == "keep")
            check_thinking(groups, config.extraction)
            differing = check_prompts(groups, config.other_prompts == "keep")
            return self._conclude(judged(groups, self.problems, self.checkers), differing, [])

    def _asked(self, problems: list[Problem]) -> dict[str, Problem]:
        """The budget's part of the problems that every checkpoint can be asked, in the order they are sampled in."""
        strata = [f"{problem.source}/{problem.difficulty}" for problem in problems]
        order = subset([p.problem_id for p in problems], strata, self.config.budget or len(problems), self.config.seed)
        asked = {name: self.all_problems[name] for name in order}
        for model in self.config.models:
            self.plans[model.name] = plan_for(self.config.sampling_of(model.path), list(asked.values()))
        everywhere = [name for name in asked if all(name in plan.problems for plan in self.plans.values())]
        if len(everywhere) < len(asked):
            say(f"{len(everywhere):,} of {len(asked):,} problems fit every checkpoint's context, and are asked")
        self.plans = {label: _only(plan, everywhere) for label, plan in self.plans.items()}
        if self.config.other_prompts == "stop":
            _check_same_prompts(self.plans)
        return {name: asked[name] for name in everywhere}

    def _keep_problems(self) -> None:
        path = self.out / "problems.jsonl"
        if path.exists():
            check_same_problems(path, self.problems)
        else:
            write_problems(path, self.problems.values())

    def _sampled(self, model: NamedPath) -> list[Group]:
        """A checkpoint's completions at every decoding."""
        plan, directories = self.plans[model.name], []
        with Engines(self.config.sampling_of(model.path), self.execution, plan) as engines:
            for decoding in self.config.decodings:
                arm = Arm(model.name, setting_of(decoding))
                at = dataclasses.replace(plan, rules=dataclasses.replace(plan.rules, sampling=decoding))
                directories.append(self.out / "traces" / arm.directory)
                self._fill(at, engines, directories[-1], str(arm))
        return self._examined(model.name, plan, directories)

    def _fill(self, plan: Plan, engines: Engines, directory: Path, what: str) -> None:
        if failure := fill(plan, engines, directory, f"sampling {what}"):
            raise RunError(f"{what}: some traces failed, the first {failure}; the same command tries them again")

    def _examined(self, label: str, plan: Plan, directories: list[Path]) -> list[Group]:
        tail = plan.model.tokenizer.decode(plan.requests[0].prompt_ids[-_TAIL:], skip_special_tokens=False)
        config = self.config.extraction
        opens = prompt_opens(tail, ExtractionRules(open_tag=config.open_tag, close_tag=config.close_tag))
        return examined(label, chain(*(read(directory, self.problems) for directory in directories)), config, opens)

    def _given(self, source: NamedPath) -> list[Group]:
        """Completions from elsewhere, of the problems asked."""
        groups = examined(source.name, read(Path(source.path), self.all_problems), self.config.extraction)
        if not groups:
            raise ValueError(f"{source.path} holds no completion")
        if repeated := sum(group.drop(self.aliases) for group in groups):
            say(f"{source.name}: {repeated:,} completions are of problems that repeat an earlier one, and are left out")
        if len(self.problems) < len(self.all_problems):
            beyond = {name for name in self.all_problems if name not in self.problems}
            dropped = sum(group.drop(beyond) for group in groups)
            say(f"{source.name}: {dropped:,} completions are of problems outside the budget, and are left out")
        return groups

    def _sequential(self) -> tuple[pa.Table, list[dict[str, Any]]]:
        """Batch after batch of problems, until the question of every checkpoint is decided."""
        config = self.config
        (decoding,) = config.decodings
        models = {model.name: model for model in config.models}
        baseline = config.baseline_label
        alpha = ALPHA / (len(models) - 1)  # every checkpoint is a question of its own
        open_questions = {
            label: PairedSequence(len(self.problems), config.sequential.margin, alpha)
            for label in models
            if label != baseline
        }
        sequences, tables = dict(open_questions), []
        batches = np.array_split(
            np.array(list(self.problems), object), min(config.sequential.looks, len(self.problems))
        )
        for number, batch in enumerate(batches, 1):
            groups: list[Group] = []
            for label in (baseline, *open_questions):
                plan = _only(self.plans[label], batch.tolist())
                directory = self.out / "traces" / Arm(label, setting_of(decoding)).directory / f"batch-{number}"
                with Engines(config.sampling_of(models[label].path), self.execution, self.plans[label]) as engines:
                    self._fill(plan, engines, directory, f"{label}, batch {number} of {len(batches)}")
                groups += self._examined(label, plan, [directory])
            check_prompts(groups, config.other_prompts == "keep")
            tables.append(judged(groups, self.problems, self.checkers))
            means = {arm.checkpoint: outcomes_of(rows).mean_P for arm, rows in by_arm(tables[-1]).items()}
            for label, sequence in list(open_questions.items()):
                look = sequence.look(means[label] - means[baseline])
                say(
                    f"{label} against {baseline} after {look.problems:,} problems: {look.points:+.1f} points"
                    f" [{look.low:+.1f}, {look.high:+.1f}], {look.verdict}"
                )
                if look.ended:
                    del open_questions[label]
            if not open_questions:
                break
        told = [
            {
                "baseline": baseline,
                "arm": label,
                "margin": sequence.margin,
                "alpha": sequence.alpha,
                "maximum": sequence.maximum,
                "planned": len(batches),
                "looks": [asdict(look) for look in sequence.looks],
            }
            for label, sequence in sequences.items()
        ]
        return pa.concat_tables(tables), told

    def _conclude(self, table: pa.Table, differing: dict[str, int], sequences: list[dict[str, Any]]) -> dict[str, Any]:
        """Write the table, the results and the figures."""
        config, directory = self.config, self.out / "eval"
        with run_dir.atomic(directory / "samples.parquet") as temporary:
            pq.write_table(table, temporary, compression="zstd")
        arms = by_arm(table)
        strata = {name: (problem.source, problem.difficulty) for name, problem in self.problems.items()}
        results: dict[str, Any] = {
            "problems": max(len(set(rows["problem_id"].to_pylist())) for rows in arms.values()),
            "planned": len(self.problems),
            "arms": [summary_of(arm, rows, config.pass_at, config.seed) for arm, rows in arms.items()],
            "selection": None,
            "comparisons": [],
            "sequential": sequences,
            "other_prompts": differing,
        }
        if not sequences:
            outcomes = {arm: outcomes_of(rows) for arm, rows in arms.items()}
            results |= compared(outcomes, config.baseline_label, strata, config.seed)
        list(draw(results, directory))
        run_dir.write_json(directory / "results.json", results)
        return results


def _problems(config: EvalConfig) -> tuple[list[Problem], set[str]]:
    """Those of the settings, or where they name none, those that come with the completions; and ids of repetitions."""
    if config.problems.sources:
        loaded = load_problems(config.problems)
        pairs = [*loaded.left_out.duplicates, *((a, b) for a, b, _ in loaded.left_out.near_duplicates)]
        return loaded.problems, {left_out for _, left_out in pairs} - {p.problem_id for p in loaded.problems}
    if config.models:
        raise ValueError("problems.sources is empty: name the problems that the models are asked")
    found: dict[str, Problem] = {}
    for source in config.completions:
        for problem in problems_beside(Path(source.path), config.problems):
            before = found.setdefault(problem.problem_id, problem)
            if (before.question, before.answer) != (problem.question, problem.answer):
                raise ValueError(
                    f"{source.path}: problem {problem.problem_id} has another question or answer than in an earlier"
                    " file: name the right ones in problems.sources"
                )
    return list(found.values()), set()


def _inputs(config: EvalConfig) -> Iterator[Path]:
    for model in config.models:
        yield from inputs_of(config.sampling_of(model.path))
    yield from (path for path in map(Path, config.problems.sources) if path.exists())
    for source in config.completions:
        path = Path(source.path)
        if not path.exists():
            raise ValueError(f"there are no completions at {path}: name a run, a directory of traces, or a file")
        yield from [path] if path.suffix == ".jsonl" else trace_files(path)
        beside = problems_file(path)
        if beside and path.suffix != ".jsonl" and not config.problems.sources:
            yield beside


def _only(plan: Plan, problem_ids: list[str]) -> Plan:
    """The plan for these problems alone, in this order."""
    of_problem: dict[str, list] = {name: [] for name in problem_ids}
    for request in plan.requests:
        if request.problem_id in of_problem:
            of_problem[request.problem_id].append(request)
    return dataclasses.replace(
        plan,
        problems={name: plan.problems[name] for name in problem_ids},
        requests=list(chain(*of_problem.values())),
    )


def _check_same_prompts(plans: dict[str, Plan]) -> None:
    """Before anything is sampled. Raises ValueError as `check_prompts`."""
    first: dict[str, tuple[str, list[int]]] = {}
    for label, plan in plans.items():
        for request in plan.requests:
            owner, prompt_ids = first.setdefault(request.problem_id, (label, request.prompt_ids))
            if prompt_ids != request.prompt_ids:
                raise ValueError(
                    f"{label} would be asked {request.problem_id} in other tokens than {owner}, by its own tokenizer or"
                    " chat template: give both --prompt.chat-template, or compare all the same with other_prompts=keep"
                )
