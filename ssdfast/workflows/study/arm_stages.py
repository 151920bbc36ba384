"""The stages of an arm, from samples to a trained model.

Arms with equal sampling parameters share their samples. Grades are stages of their own, on which no sample and no
training depends but that of correct traces: with another extraction of answers nothing is sampled again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from ... import run_dir
from ...config import (
    EvalConfig,
    EvalExecution,
    NamedPath,
    SampleConfig,
    StudyConfig,
    StudyExecution,
    TrainExecution,
    TrainingRunConfig,
)
from ...config.study import RECIPES
from ...evaluation.runs import KnownSamplingParams
from ...schemas import TraceSelection
from . import select_traces
from .graph import Stage

SAMPLES = "eval/samples.parquet"
"""The grades of an evaluation."""


class ArmStages:
    """The stages of the arms of a study in the directory `root`.

    model: the baseline's path. num_problems: how many problems training and evaluation have.
    """

    def __init__(
        self, config: StudyConfig, root: Path, model: str, num_problems: tuple[int, int], execution: StudyExecution
    ) -> None:
        self.config, self.root, self.model, self.execution = config, root, model, execution
        self.num_train_problems, self.num_eval_problems = num_problems

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
        return self._stage("sample", label, json_values(config), run, [], tokens)

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
        settings = json_values(self.config.arm_training(arm))

        def run(directory: Path) -> None:
            from ...training.runner import train

            config = TrainingRunConfig(
                model=self.model, traces=str(selected.directory / "traces"), seed=seed, **settings
            )
            train(config, directory, TrainExecution(num_threads=self.execution.engine_args.num_threads))

        epochs = self.config.arm_training(arm).num_train_epochs
        tokens = self.num_train_problems * self.config.train_max_new_tokens * epochs
        return self._stage("train", f"{arm}-{seed}", {**settings, "seed": seed}, run, [selected], tokens)

    @property
    def _grading(self) -> dict[str, Any]:
        """The settings that grades depend on, and samples do not."""
        settings = json_values(self.config)
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


def json_values(config: Any) -> dict[str, Any]:
    values: dict[str, Any] = config.model_dump(mode="json")
    return values
