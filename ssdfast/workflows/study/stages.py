"""The stages of a study in the order in which they run.

For each arm and seed: sample, select, train, eval; then the traces of the probe, a probe for each trained model, and
the two stages that join all arms, compare and attribute. Arms with equal sampling parameters share their samples.
Grades are stages of their own, on which no sample and no training depends but that of correct traces: with another
extraction of answers nothing is sampled again.
A stage imports what runs it when it runs, so that a study that is done opens in seconds.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from ... import run_dir
from ...config import (
    EvalConfig,
    EvalExecution,
    ExecutionConfig,
    NamedPath,
    ProbeConfig,
    SampleConfig,
    StudyConfig,
    StudyExecution,
    TrainExecution,
    TrainingRunConfig,
)
from ...config.study import RECIPES
from ...evaluation.runs import KnownSamplingParams, Run
from ...report.study import Training
from ...schemas import DecodingCurves, TraceSelection, read_metrics
from . import select_traces
from .graph import Stage

BASELINE = "baseline"
SAMPLES = "eval/samples.parquet"
"""The grades of an evaluation."""
_RECIPE_NOTES = {"length-matched": "; resampled to the lengths of ssd", "correct-only": "; correct traces only"}


class Stages:
    """All stages of a study in the directory `root`.

    model: the baseline's path. num_problems: how many problems training and evaluation have.
    """

    def __init__(
        self, config: StudyConfig, root: Path, model: str, num_problems: tuple[int, int], execution: StudyExecution
    ) -> None:
        self.config, self.root, self.model, self.execution = config, root, model, execution
        self.num_train_problems, self.num_eval_problems = num_problems

    def final(self) -> list[Stage]:
        """The stages that all others lead to."""
        return [self.compare, self.attribute, *(self.training_data(arm, seed) for arm, seed in self._arm_seeds())]

    def arm(self, arm: str) -> list[Stage]:
        """What is run for one arm: the evaluation and the probe of each seed, with all that they need."""
        seeds = self.config.arm_seeds(arm)
        return [stage(arm, seed) for seed in seeds for stage in (self.eval, self.probe, self.training_data)]

    def sample(self, arm: str, seed: int) -> Stage:
        """The samples that an arm trains on; one stage for all arms with equal sampling parameters."""
        sampling = self.config.arm_sampling(arm)
        config = SampleConfig(
            model=self.model,
            problems=self.config.train_problems,
            prompt=self.config.prompt,
            sampling=sampling,
            max_new_tokens=self.config.train_max_new_tokens,
            top_logprobs=max(20, sampling.top_k),
            engine=self.config.engine,
            seed=seed,
        )

        def run(directory: Path) -> None:
            from ...sampling.runner import sample

            if failure := sample(config, directory, self.execution.engine_args).first_failure:
                raise run_dir.RunError(f"some traces failed, the first {failure}; the same command tries them again")

        label = f"{KnownSamplingParams.from_config(sampling)}-{seed}".replace(" ", "-").replace("=", "")
        tokens = self.num_train_problems * self.config.train_max_new_tokens
        return self._stage("sample", label, _json(config), run, [], tokens)

    def grade(self, arm: str, seed: int) -> Stage:
        """The grades of the samples, beside them."""
        samples = self.sample(arm, seed)

        def run(directory: Path) -> None:
            self._grade(samples.directory, directory)

        return self._stage("grade", samples.label, self._grading, run, [samples])

    def select(self, arm: str, seed: int) -> Stage:
        """The traces that an arm trains on, by its recipe."""
        recipe = RECIPES[self.config.arms[arm].recipe]
        source = self.grade(arm, seed) if recipe.get("correct_only") else self.sample(arm, seed)
        target = self.sample(recipe["match_lengths"], seed) if recipe.get("match_lengths") else None
        settings = {"recipe": recipe, "truncated_traces": self.config.truncated_traces, "seed": seed}

        def run(directory: Path) -> None:
            sampled = self._graded(arm, seed) if recipe.get("correct_only") else select_traces.index(source.directory)
            filtered = self._without_truncated(sampled)
            selected = select_traces.only_correct(filtered) if recipe.get("correct_only") else filtered
            if target:
                target_table = self._without_truncated(select_traces.index(target.directory))
                selected = select_traces.match_lengths(selected, target_table, seed)
            select_traces.write(selected, directory / "traces")

        return self._stage("select", f"{arm}-{seed}", settings, run, [source, target] if target else [source])

    def training_data(self, arm: str, seed: int) -> Stage:
        """The distributions of the traces as sampled, after the filter and as selected, with the fraction correct."""
        graded, selected = self.grade(arm, seed), self.select(arm, seed)

        def run(directory: Path) -> None:
            sampled = self._graded(arm, seed)
            tables = {
                "sampled": sampled,
                "filtered": self._without_truncated(sampled),
                "selected": select_traces.with_grades(select_traces.index(selected.directory), sampled),
            }
            described = {name: select_traces.describe(table) for name, table in tables.items()}
            TraceSelection.model_validate(described).write(directory / "selection.json")

        return self._stage("training_data", f"{arm}-{seed}", {}, run, [graded, selected])

    def train(self, arm: str, seed: int) -> Stage:
        selected = self.select(arm, seed)
        settings = _json(self.config.arm_training(arm))

        def run(directory: Path) -> None:
            from ...training.runner import train

            config = TrainingRunConfig(
                model=self.model, traces=str(selected.directory / "traces"), seed=seed, **settings
            )
            train(config, directory, TrainExecution(num_threads=self.execution.engine_args.num_threads))

        epochs = self.config.arm_training(arm).num_train_epochs
        tokens = self.num_train_problems * self.config.train_max_new_tokens * epochs
        return self._stage("train", f"{arm}-{seed}", {**settings, "seed": seed}, run, [selected], tokens)

    def eval(self, arm: str, seed: int) -> Stage:
        """The answers of one model with every combination of the sweep."""
        name = arm if arm == BASELINE else f"{arm}-{seed}"
        trained = None if arm == BASELINE else self.train(arm, seed)

        def config() -> EvalConfig:
            return EvalConfig(
                models=(NamedPath(name=name, path=self._model_path(trained)),),
                problems=self.config.eval_problems,
                prompt=self.config.prompt,
                sampling=self.config.eval_sampling,
                sweep=self.config.sweep,
                samples_per_problem=self.config.samples_per_problem,
                max_new_tokens=self.config.eval_max_new_tokens,
                **self.config.grading(),
                engine=self.config.engine,
            )

        def run(directory: Path) -> None:
            from ..evaluate import evaluate

            evaluate(config(), directory, self._eval_execution)

        combinations = len(self.config.sweep.grid(self.config.eval_sampling))
        samples = self.num_eval_problems * self.config.samples_per_problem * combinations
        settings = {key: value for key, value in _json(config()).items() if key not in self._grading}
        settings |= {"models": name}
        needs = [trained] if trained else []
        return self._stage("eval", name, settings, run, needs, samples * self.config.eval_max_new_tokens)

    @cached_property
    def probe_traces(self) -> Stage:
        """The baseline's graded answers at which all models are probed."""
        answers = self.eval(BASELINE, 0)
        sampling = self.config.sweep.grid(self.config.eval_sampling)[0]
        count = self.config.num_probe_traces

        def run(directory: Path) -> None:
            run = Run(BASELINE, KnownSamplingParams.from_config(sampling)).directory
            answered = answers.directory / "traces" / run
            self._grade(answered, directory / "graded")
            graded = select_traces.index(answered, directory / "graded" / SAMPLES)
            select_traces.write(select_traces.subsample(graded, count, seed=0), directory / "traces")
            shutil.copyfile(answers.directory / "problems.jsonl", directory / "problems.jsonl")

        settings = {"count": count, "sampling": _json(sampling), **self._grading}
        return self._stage("probe_traces", BASELINE, settings, run, [answers])

    def probe(self, arm: str, seed: int) -> Stage:
        """The shift of one trained model at every position of the probe's traces."""
        trained, traces = self.train(arm, seed), self.probe_traces

        def config() -> ProbeConfig:
            return ProbeConfig(
                baseline=self.model,
                trained=self._model_path(trained),
                traces=(NamedPath(name=BASELINE, path=str(traces.directory / "traces")),),
                eval_sampling=self.config.eval_sampling.kernel_params(),
                train_sampling=self.config.train_sampling.kernel_params(),
                lse_temperatures=self.config.lse_temperatures,
                token_classes=self.config.token_classes,
            )

        def run(directory: Path) -> None:
            from ...probing.runner import probe

            threads = self.execution.engine_args.num_threads
            execution = ExecutionConfig(
                on_sampling_mismatch="allow", num_threads=threads, baseline_states=str(self.baseline_states)
            )
            if failed := probe(config(), directory, execution):
                raise run_dir.RunError(f"{len(failed)} traces could not be scored, the first {failed[0].trace_id}")

        answers = self.num_eval_problems * self.config.samples_per_problem
        tokens = min(answers, self.config.num_probe_traces or answers) * self.config.eval_max_new_tokens
        settings = _json(config()) | {"trained": "", "traces": ""}
        return self._stage("probe", f"{arm}-{seed}", settings, run, [trained, traces], 2 * tokens)

    @property
    def baseline_states(self) -> Path:
        """The baseline's hidden states at the traces of the probe, while trained models are probed beside it."""
        return self.root / "baseline_states"

    @cached_property
    def compare(self) -> Stage:
        """Every trained model's accuracy beside the baseline's."""
        evals = {BASELINE: self.eval(BASELINE, 0)}
        evals |= {f"{arm}-{seed}": self.eval(arm, seed) for arm, seed in self._arm_seeds()}

        def run(directory: Path) -> None:
            from ..evaluate import evaluate

            config = EvalConfig(
                completions=tuple(
                    NamedPath(name=name, path=str(stage.directory / "traces" / name)) for name, stage in evals.items()
                ),
                baseline=BASELINE,
                problems=self.config.eval_problems,
                prompt=self.config.prompt,
                **self.config.grading(),
            )
            evaluate(config, directory, self._eval_execution)

        settings = {"eval_problems": _json(self.config.eval_problems), **self._grading}
        return self._stage("compare", "", settings, run, evals.values())

    @cached_property
    def attribute(self) -> Stage:
        """What the shift of each arm is made of, beside the control's."""
        from ...attribution.attribute import attribute
        from ...attribution.decoding_curves import decoding_curves

        probes = {arm: [self.probe(arm, seed) for seed in self.config.arm_seeds(arm)] for arm in self.config.arms}

        def run(directory: Path) -> None:
            directories = {arm: [stage.directory for stage in stages] for arm, stages in probes.items()}
            attribution = attribute(directories, self.config.control)
            curves = {arm: decoding_curves(first) for arm, (first, *_) in directories.items()}
            DecodingCurves.model_validate({"arms": curves}).write(directory / "decoding_curves.json")
            attribution.write(directory / "attribution.json")

        needs = [stage for stages in probes.values() for stage in stages]
        return self._stage("attribute", "", {"control": self.config.control}, run, needs)

    def trained_models(self) -> Iterator[tuple[str, Path]]:
        """ARM-SEED and the directory of its model, which exists once the stage is done."""
        for arm, seed in self._arm_seeds():
            yield f"{arm}-{seed}", Path(self._model_path(self.train(arm, seed)))

    def trainings(self) -> Iterator[Training]:
        """What the report shows of each training, once its stages are done."""
        for arm, seed in self._arm_seeds():
            metrics = self.train(arm, seed).directory / "train" / "metrics.jsonl"
            sampling = KnownSamplingParams.from_config(self.config.arm_sampling(arm))
            description = f"{sampling}; {self.config.arm_training(arm).loss} loss"
            yield Training(
                arm,
                seed,
                description + _RECIPE_NOTES.get(self.config.arms[arm].recipe, ""),
                TraceSelection.read(self.training_data(arm, seed).directory / "selection.json"),
                read_metrics(metrics),
                self.probe(arm, seed).directory,
            )

    @property
    def _grading(self) -> dict[str, Any]:
        """The settings that grades depend on, and samples do not."""
        settings = _json(self.config)
        return {name: settings[name] for name in self.config.grading()}

    def _grade(self, traces: Path, directory: Path) -> None:
        """Grade traces; SAMPLES in `directory` then has their grades."""
        from ..evaluate import evaluate

        source = NamedPath(name="sampled", path=str(traces))
        config = EvalConfig(completions=(source,), **self.config.grading())
        evaluate(config, directory, self._eval_execution, of_others=False)

    def _graded(self, arm: str, seed: int) -> pa.Table:
        """The index of the samples that an arm trains on, with their grades."""
        return select_traces.index(self.sample(arm, seed).directory, self.grade(arm, seed).directory / SAMPLES)

    def _without_truncated(self, table: pa.Table) -> pa.Table:
        return select_traces.without_truncated(table) if self.config.truncated_traces == "drop" else table

    def _model_path(self, trained: Stage | None) -> str:
        return str(trained.directory / "train" / "model") if trained else self.model

    def _arm_seeds(self) -> Iterator[tuple[str, int]]:
        for arm in self.config.arms:
            for seed in self.config.arm_seeds(arm):
                yield arm, seed

    @property
    def _eval_execution(self) -> EvalExecution:
        return EvalExecution(**self.execution.engine_args.model_dump())

    def _stage(
        self, kind: str, label: str, settings: dict[str, Any], run: Any, needs: Iterable[Stage], tokens: int = 0
    ) -> Stage:
        return Stage(kind, label, settings | {"model": self.model}, run, tuple(needs), tokens, self.root)


def _json(config: Any) -> dict[str, Any]:
    values: dict[str, Any] = config.model_dump(mode="json")
    return values
