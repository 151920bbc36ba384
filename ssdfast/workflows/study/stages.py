"""The stages of a study in the order in which they run.

For each arm and seed: sample, select, train, eval; then the traces of the probe, the baseline's columns at them, a
probe for each trained model, and the two stages that join all arms, compare and attribute.
A stage imports what runs it when it runs, so that a study that is done opens in seconds.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from ... import run_dir
from ...config import BASELINE, EvalConfig, ExecutionConfig, NamedPath, ProbeConfig
from ...evaluation.runs import KnownSamplingParams, Run
from ...report.study import Training
from ...schemas import DecodingCurves, TraceSelection, read_metrics
from . import select_traces
from .arm_stages import SAMPLES, ArmStages, json_values
from .graph import Stage

_RECIPE_NOTES = {"length-matched": "; resampled to the lengths of ssd", "correct-only": "; correct traces only"}


class Stages(ArmStages):
    """All stages of a study."""

    def final(self) -> list[Stage]:
        """The stages that all others lead to."""
        return [self.compare, self.attribute, *(self.training_data(arm, seed) for arm, seed in self._arm_seeds())]

    def arm(self, arm: str) -> list[Stage]:
        """What is run for one arm: the evaluation and the probe of each seed, with all that they need."""
        seeds = self.config.arm_seeds(arm)
        return [stage(arm, seed) for seed in seeds for stage in (self.eval, self.probe, self.training_data)]

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
        settings = {key: value for key, value in json_values(config()).items() if key not in self._grading}
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

        settings = {"count": count, "sampling": json_values(sampling), **self._grading}
        return self._stage("probe_traces", BASELINE, settings, run, [answers])

    def probe(self, arm: str, seed: int) -> Stage:
        """The shift of one trained model at every position of the probe's traces."""
        trained, baseline = self.train(arm, seed), self.probe_baseline

        def run(directory: Path) -> None:
            from ...probing.runner import probe

            config = self._probe_config(self._model_path(trained))
            if failed := probe(config, directory, self._probe_execution, baseline=baseline.directory):
                raise run_dir.RunError(f"{len(failed)} traces could not be scored, the first {failed[0].trace_id}")

        settings = json_values(self._probe_config("")) | {"traces": ""}
        # At most: the baseline reads them again where its hidden states could not be kept.
        tokens = 2 * self._probe_tokens
        return self._stage("probe", f"{arm}-{seed}", settings, run, [trained, baseline], tokens)

    @cached_property
    def probe_baseline(self) -> Stage:
        """The baseline's columns at every position of the probe's traces, which all probes share."""

        def run(directory: Path) -> None:
            from ...probing.baseline_columns import probe_baseline

            probe_baseline(self._probe_config(""), directory, self._probe_execution)

        settings = json_values(self._probe_config("").without_trained()) | {"traces": ""}
        return self._stage("probe", BASELINE, settings, run, [self.probe_traces], self._probe_tokens)

    @property
    def baseline_states(self) -> Path:
        """The baseline's hidden states at the traces of the probe, while trained models are probed beside it."""
        return self.root / "baseline_states"

    def _probe_config(self, trained: str) -> ProbeConfig:
        return ProbeConfig(
            baseline=self.model,
            trained=trained,
            traces=(NamedPath(name=BASELINE, path=str(self.probe_traces.directory / "traces")),),
            eval_sampling=self.config.eval_sampling.kernel_params(),
            train_sampling=self.config.train_sampling.kernel_params(),
            lse_temperatures=self.config.lse_temperatures,
            token_classes=self.config.token_classes,
        )

    @property
    def _probe_execution(self) -> ExecutionConfig:
        return ExecutionConfig(
            on_sampling_mismatch="allow",
            num_threads=self.execution.engine_args.num_threads,
            max_spill_gb=self.execution.max_spill_gb,
            baseline_states=str(self.baseline_states),
        )

    @property
    def _probe_tokens(self) -> int:
        """The maximum number of tokens in the probe's traces."""
        answers = self.num_eval_problems * self.config.samples_per_problem
        return min(answers, self.config.num_probe_traces or answers) * self.config.eval_max_new_tokens

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

        settings = {"eval_problems": json_values(self.config.eval_problems), **self._grading}
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
