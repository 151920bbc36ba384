"""``ssdfast eval``: sample checkpoints over a sweep, or read existing completions; grade and compare them.

The traces of each run are in traces/CHECKPOINT/SAMPLING, the graded samples in eval/samples.parquet, the numbers in
eval/results.json and the plots in eval/*.svg. A run that was stopped continues with the traces that are missing. Traces
get their grades as a column `correct`: those of a checkpoint in place, those of another run in traces/NAME, by name.
With other settings of grading nothing is sampled again, and with more samples or tokens only what is missing.
"""

from __future__ import annotations

import dataclasses
import logging
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .. import run_dir
from ..config import EvalConfig, EvalExecution, NamedPath
from ..config.evaluate import GRADING
from ..evaluation.answers.conventions import Conventions
from ..evaluation.comparisons import compare_runs
from ..evaluation.completions import read
from ..evaluation.diagnostics import prompt_opens
from ..evaluation.extract import FALLBACKS, ExtractionRules
from ..evaluation.grader_pool import GraderPool
from ..evaluation.grading import check_golds, find_bad_golds, grade_answers
from ..evaluation.plots import draw
from ..evaluation.runs import KnownSamplingParams, Run
from ..evaluation.samples import (
    RunSamples,
    check_problems,
    check_prompts,
    check_thinking,
    examine_completions,
    grade_runs,
    split_by_run,
)
from ..evaluation.stats.subsets import stratified_subset
from ..evaluation.summary import run_scores, summarize_run
from ..extras import require
from ..manifest import write_manifest
from ..number_format import format_names
from ..problems.problem import Problem, write_problems
from ..processor import device_name
from ..run_dir import RunError
from ..sampling.estimate import estimate_plan
from ..sampling.requests import LazyEngine, Plan, check_sampling_params, plan_for
from ..sampling.runner import GROWING, check_same_problems, fill
from ..schemas import EvaluationResults
from ..trackers import check_summary_trackers, report_summary
from .eval_grades import write_grades
from .eval_inputs import check_same_prompts, evaluation_files, read_problems, restrict_plan
from .eval_sequential import compare_in_batches

RESULTS = ("traces", "eval", "problems.jsonl")
AFTER_SAMPLING = (*GRADING, "baseline", "pass_at_k", "on_missing_samples", "on_prompt_mismatch")
"""The settings with which stored traces are graded again: no trace depends on them."""
_TAIL = 64
"""The tokens of a prompt's end, where a thinking part would be opened."""

_log = logging.getLogger("ssdfast.evaluation")


def evaluate(
    config: EvalConfig,
    out: Path,
    execution: EvalExecution | None = None,
    overwrite: bool = False,
    of_others: bool = True,
) -> EvaluationResults:
    """Fill `out`; returns the content of eval/results.json. Does nothing more where that is there with these settings.

    of_others: write traces/NAME for the traces of other runs; else their grades are in samples.parquet alone.
    Raises ValueError for unusable settings, problems, models or completions, naming file, line and problem; RunError
    where traces failed, which the same command tries again.
    """
    config.check()
    require("eval")
    execution = execution or EvalExecution()
    check_summary_trackers(execution.report_to)
    with run_dir.lock(out):
        return _Evaluation(config, out, execution, of_others).run(overwrite)


def estimate(config: EvalConfig, execution: EvalExecution, out: Path) -> str:
    """The cost of sampling each checkpoint over the sweep, from a short trial. Nothing is written."""
    config.check()
    if not config.models:
        raise ValueError("there is nothing to sample: existing completions are graded in seconds")
    evaluation = _Evaluation(config, out, execution)
    evaluation.prepare()
    lines = []
    for model in config.models:
        runs = [Run(model.name, KnownSamplingParams.from_config(sampling)) for sampling in config.sampling_grid]
        directories = [out / "traces" / run.directory for run in runs]
        plan = evaluation.plans[model.name]
        lines += [model.name, str(estimate_plan(plan, config.sample_config(model.path), execution, directories))]
    return "\n".join(lines)


class _Evaluation:
    def __init__(self, config: EvalConfig, out: Path, execution: EvalExecution, of_others: bool = True) -> None:
        self.config, self.out, self.execution, self.of_others = config, out, execution, of_others
        self.plans: dict[str, Plan] = {}
        self.skipped: list[str] = []

    def prepare(self) -> None:
        """Read problems and tokenizers, and find every mistake that can be found before sampling."""
        for sampling in self.config.sampling_grid if self.config.models else ():
            check_sampling_params(self.config.sample_config(""), sampling)
        problems, self.aliases = read_problems(self.config)
        if self.config.limit > len(problems):
            raise ValueError(
                f"a --limit of {self.config.limit:,} is more than the {len(problems):,} problems there are: lower it"
            )
        self.all_problems = {problem.problem_id: problem for problem in problems}
        self.problems = self._select_problems(problems)
        if len(self.problems) < 2 and len(self.config.models) + len(self.config.completions) > 1:
            raise ValueError("a comparison needs at least 2 problems: add problems, or evaluate a single checkpoint")

    def run(self, overwrite: bool) -> EvaluationResults:
        config, results = self.config, self.out / "eval" / "results.json"
        run_dir.check_claim(self.out, config, RESULTS, overwrite, AFTER_SAMPLING, GROWING)
        inputs = list(dict.fromkeys(evaluation_files(config)))
        if results.exists() and not overwrite:
            changes = run_dir.changed_settings(self.out, config)
            if not changes:
                self._claim(inputs, overwrite)
                return EvaluationResults.read(results)
            if not set(changes) & set(GROWING):
                _log.info(f"{self.out}: the stored traces are graded again, with another {', '.join(changes)}")
        self.prepare()
        with GraderPool(
            self.execution.grader_workers or None,
            self.execution.grader_cpu_seconds,
            conventions=Conventions(**config.conventions.model_dump()),
            grader=config.grader,
        ) as self.pool:
            self._check_golds()
            existing = [*chain(*map(self._read_completions, config.completions))]
            mismatches = {} if config.models else self._check(existing)
            self._claim(inputs, overwrite)
            self._write_problems()
            if config.sequential.equivalence_margin:
                table, sequences = self._run_sequential()
                return self._write_results(table, {}, sequences)
            runs = [*chain(*map(self._sample, config.models)), *existing]
            if config.models:
                mismatches = self._check(runs)
            table = grade_runs(runs, self.problems, self.pool)
            self._warn_of_strict_extraction(runs, table)
            return self._write_results(table, mismatches, [])

    def _check_golds(self) -> None:
        """Leave out the problems with a bad gold answer, or raise ValueError for them."""
        if self.config.on_bad_gold == "error":
            return check_golds(list(self.problems.values()), self.pool)
        missing, broken = find_bad_golds(list(self.problems.values()), self.pool)
        bad = {problem.problem_id for problem in (*missing, *broken)}
        if len(bad) == len(self.problems):
            raise ValueError("every gold answer is missing or cannot be parsed: correct the answers")
        if bad:
            names = format_names(sorted(bad))
            _log.warning(
                f"{len(bad):,} problems whose gold answer is missing or cannot be parsed are left out: {names}"
            )
            self.skipped = sorted(bad)
            self.problems = {name: problem for name, problem in self.problems.items() if name not in bad}
            self.plans = {name: restrict_plan(plan, list(self.problems)) for name, plan in self.plans.items()}
        return None

    def _check(self, runs: list[RunSamples]) -> dict[str, int]:
        check_problems(runs, self.problems, self.config.on_missing_samples == "allow")
        check_thinking(runs, self.config.extraction)
        return check_prompts(runs, self.config.on_prompt_mismatch == "allow")

    def _warn_of_strict_extraction(self, runs: list[RunSamples], table: pa.Table) -> None:
        """Name the fallback that would have found correct answers, where a run has none at all."""
        rows_by_run = split_by_run(table)
        for samples in runs:
            rows = rows_by_run[samples.run]
            if "correct" in rows["grade"].to_pylist():
                continue
            for flag in FALLBACKS:
                answers = [
                    (self.problems[completion.problem_id], found)
                    for completion, found in zip(samples.completions, samples.fallbacks[flag], strict=True)
                    if found is not None
                ]
                graded = grade_answers(answers, self.pool)
                if correct := sum(each.grade == "correct" for each in graded):
                    option = flag.replace("_", "-")
                    _log.warning(
                        f"{samples.run}: 0 of {len(rows):,} answers are correct, and {correct:,} would be with"
                        f" --extraction.{option} True: the same command with it grades the stored traces again"
                    )

    def _claim(self, inputs: list[Path], overwrite: bool) -> None:
        run_dir.claim(self.out, self.config, RESULTS, overwrite, AFTER_SAMPLING, GROWING)
        write_manifest(self.out, device_name(), self.config.seed, inputs)

    def _select_problems(self, problems: list[Problem]) -> dict[str, Problem]:
        """The problems within the limit that fit every checkpoint's context, in the order of sampling."""
        strata = [f"{problem.source}/{problem.difficulty}" for problem in problems]
        size = self.config.limit or len(problems)
        order = stratified_subset([problem.problem_id for problem in problems], strata, size, self.config.seed)
        selected = {name: self.all_problems[name] for name in order}
        for model in self.config.models:
            self.plans[model.name] = plan_for(self.config.sample_config(model.path), list(selected.values()))
        fitting = [name for name in selected if all(name in plan.problems for plan in self.plans.values())]
        if len(fitting) < len(selected):
            _log.warning(
                f"{len(fitting):,} of {len(selected):,} problems fit every checkpoint's context; the rest is left out"
            )
        self.plans = {name: restrict_plan(plan, fitting) for name, plan in self.plans.items()}
        if self.config.on_prompt_mismatch == "error":
            check_same_prompts(self.plans)
        return {name: selected[name] for name in fitting}

    def _write_problems(self) -> None:
        path = self.out / "problems.jsonl"
        if path.exists():
            check_same_problems(path, self.problems)
        else:
            write_problems(path, self.problems.values())

    def _sample(self, model: NamedPath) -> list[RunSamples]:
        """A checkpoint's completions at all sampling parameters of the sweep."""
        plan, directories = self.plans[model.name], []
        with LazyEngine(self.config.sample_config(model.path), self.execution, plan) as engines:
            for number, sampling in enumerate(self.config.sampling_grid):
                run = Run(model.name, KnownSamplingParams.from_config(sampling))
                run_plan = dataclasses.replace(plan, rules=dataclasses.replace(plan.rules, sampling=sampling))
                directories.append(self.out / "traces" / run.directory)
                models_after = len(self.config.models) - 1 - self.config.models.index(model)
                runs_after = (models_after + 1) * len(self.config.sampling_grid) - 1 - number
                self._fill(run_plan, engines, directories[-1], str(run), runs_after, models_after)
        return self._examine(model.name, plan, directories)

    def _fill(
        self, plan: Plan, engines: LazyEngine, directory: Path, what: str, runs_after: int = 0, models_after: int = 0
    ) -> None:
        failure = fill(plan, engines, directory, f"sampling {what}", runs_after=runs_after, models_after=models_after)
        if failure:
            raise RunError(f"{what}: some traces failed, the first {failure}; the same command tries them again")

    def _examine(self, checkpoint: str, plan: Plan, directories: list[Path]) -> list[RunSamples]:
        tail = plan.model.tokenizer.decode(plan.requests[0].prompt_ids[-_TAIL:], skip_special_tokens=False)
        config = self.config.extraction
        opens = prompt_opens(tail, ExtractionRules(think_start=config.think_start, think_end=config.think_end))
        completions = chain(*(read(directory, self.problems) for directory in directories))
        return examine_completions(checkpoint, completions, config, opens)

    def _read_completions(self, source: NamedPath) -> list[RunSamples]:
        """Existing completions, of the selected problems."""
        completions = read(Path(source.path), self.all_problems)
        runs = examine_completions(source.name, completions, self.config.extraction)
        if not runs:
            raise ValueError(f"{source.path} has no completion: name a file or directory with completions")
        if repeated := sum(samples.drop(self.aliases) for samples in runs):
            _log.warning(
                f"{source.name}: {repeated:,} completions are of problems that repeat an earlier one: left out"
            )
        if len(self.problems) < len(self.all_problems):
            beyond = {name for name in self.all_problems if name not in self.problems}
            dropped = sum(samples.drop(beyond) for samples in runs)
            _log.info(f"{source.name}: {dropped:,} completions are of problems outside the selection: left out")
        return runs

    def _run_sequential(self) -> tuple[pa.Table, list[dict[str, Any]]]:
        (sampling,) = self.config.sampling_grid
        models = {model.name: model for model in self.config.models}

        def sample(checkpoint: str, batch: list[str], number: int, batches: int) -> list[RunSamples]:
            plan = restrict_plan(self.plans[checkpoint], batch)
            run = Run(checkpoint, KnownSamplingParams.from_config(sampling))
            directory = self.out / "traces" / run.directory / f"batch-{number}"
            model = self.config.sample_config(models[checkpoint].path)
            with LazyEngine(model, self.execution, self.plans[checkpoint]) as engines:
                self._fill(plan, engines, directory, f"{checkpoint}, batch {number} of {batches}")
            return self._examine(checkpoint, plan, [directory])

        return compare_in_batches(
            self.config, list(self.problems), sample, lambda runs: grade_runs(runs, self.problems, self.pool)
        )

    def _write_results(
        self, table: pa.Table, mismatches: dict[str, int], sequences: list[dict[str, Any]]
    ) -> EvaluationResults:
        """Write the table, the results and the plots."""
        config, directory = self.config, self.out / "eval"
        with run_dir.atomic(directory / "samples.parquet") as temporary:
            pq.write_table(table.replace_schema_metadata(run_dir.parquet_metadata()), temporary, compression="zstd")
        runs = split_by_run(table)
        write_grades(self.out / "traces", config, table, self.of_others)
        strata = {name: (problem.source, problem.difficulty) for name, problem in self.problems.items()}
        values: dict[str, Any] = {
            "problems": max(len(set(rows["problem_id"].to_pylist())) for rows in runs.values()),
            "planned_problems": len(self.problems),
            "bad_golds": self.skipped,
            "runs": [summarize_run(run, rows, config.pass_at_k) for run, rows in runs.items()],
            "selection": None,
            "comparisons": [],
            "sequential": sequences,
            "prompt_mismatches": mismatches,
        }
        if not sequences:
            scores = {run: run_scores(rows) for run, rows in runs.items()}
            values |= compare_runs(scores, config.baseline_name, strata, config.seed)
        results = EvaluationResults.model_validate(values)
        list(draw(results, directory))
        results.write(directory / "results.json")
        report_summary(self.execution.report_to, "eval", self.out, {"runs": results.to_json()["runs"]})
        return EvaluationResults.read(directory / "results.json")
