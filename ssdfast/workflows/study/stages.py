"""The stages of a study: for each arm and seed sample, judge, choose, train, evaluate and probe; then what joins them.

The traces of arms that draw alike are the same; so are the answers of the baseline at which every model is probed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ... import run_dir
from ...config import (
    DecodingConfig,
    EvalConfig,
    EvalExecution,
    Labelled,
    ProbeConfig,
    SampleConfig,
    StudyConfig,
    StudyExecution,
    TrainExecution,
    TrainingRunConfig,
)
from ...config.study import RECIPES
from ...evaluation.runs import Arm, setting_of
from ...probing.runner import probe
from ...report.study import Training
from ...sampling.runner import sample
from ...training.runner import train
from ..evaluate import evaluate
from .graph import Stage
from .select_traces import described, judged, some, to_lengths_of, without_cut_off, write

BASELINE = "baseline"
_RECIPE_TOLD = {"length-matched": "; drawn to the lengths of ssd", "correct-only": "; right answers alone"}


class Stages:
    """All stages of a study in `root`; `model` is the baseline's path, `problems` the number of problems to learn from
    and to ask."""

    def __init__(
        self, config: StudyConfig, root: Path, model: str, problems: tuple[int, int], execution: StudyExecution
    ) -> None:
        self.config, self.root, self.model, self.execution = config, root, model, execution
        self.learnt, self.asked = problems

    def of_arm(self, arm: str) -> list[Stage]:
        """What is run for one arm, the evaluations and probes of its seeds."""
        return [
            stage for seed in self.config.seeds_of(arm) for stage in (self._eval(arm, seed), self._probe(arm, seed))
        ]

    def all(self) -> list[Stage]:
        return [self.compared, self.attributed]

    @cached_property
    def compared(self) -> Stage:
        """Every trained model's answers beside the baseline's."""
        stages = {BASELINE: self._eval(BASELINE, 0)}
        stages |= {f"{arm}-{seed}": self._eval(arm, seed) for arm, seed in self._arms()}

        def run(directory: Path) -> None:
            completions = tuple(
                Labelled(label=label, path=str(stage.directory / "traces" / label)) for label, stage in stages.items()
            )
            evaluate(
                EvalConfig(
                    completions=completions,
                    baseline=BASELINE,
                    problems=self.config.asked,
                    prompt=self.config.prompt,
                    extraction=self.config.extraction,
                ),
                directory,
                self._evaluating,
            )

        return self._stage("compare", "", {"asked": self.config.asked.model_dump(mode="json")}, run, stages.values())

    @cached_property
    def attributed(self) -> Stage:
        """What moved each arm, beside the control."""
        from ...attribution.attribute import attribute
        from ...attribution.decoding_curves import panels

        probes = {arm: [self._probe(arm, seed) for seed in self.config.seeds_of(arm)] for arm in self.config.arms}

        def run(directory: Path) -> None:
            found = attribute(
                {arm: [stage.directory for stage in stages] for arm, stages in probes.items()}, self.config.control
            )
            firsts = {arm: panels(stages[0].directory) for arm, stages in probes.items()}
            run_dir.write_json(directory / "panels.json", firsts)
            run_dir.write_json(directory / "attribution.json", found)

        needs = [stage for stages in probes.values() for stage in stages]
        return self._stage("attribute", "", {"control": self.config.control}, run, needs)

    def chosen(self, arm: str, seed: int) -> Stage:
        """The traces that an arm learns from."""
        recipe = RECIPES[self.config.arms[arm].like]
        own = self._judged(self._sample(arm, seed))
        others = self._judged(self._sample(recipe["lengths_of"], seed)) if recipe.get("lengths_of") else None
        settings = {"recipe": recipe, "overlong": self.config.overlong, "seed": seed}

        def run(directory: Path) -> None:
            table = self._kept(own)
            before = table
            if recipe.get("correct_only"):
                table = table.filter(pa.compute.fill_null(table["correct"], False))
            if others:
                table = to_lengths_of(table, self._kept(others), seed)
            write(table, directory / "traces")
            stages = {"sampled": pq.read_table(own.directory / "traces"), "kept": before, "learnt": table}
            run_dir.write_json(directory / "chosen.json", {name: described(one) for name, one in stages.items()})

        return self._stage("choose", f"{arm}-{seed}", settings, run, [own, others] if others else [own])

    def trained(self, arm: str, seed: int) -> Stage:
        chosen = self.chosen(arm, seed)
        settings = self.config.training_of(arm).model_dump(mode="json")

        def run(directory: Path) -> None:
            config = TrainingRunConfig(model=self.model, traces=str(chosen.directory / "traces"), seed=seed, **settings)
            train(config, directory, TrainExecution())

        tokens = self.learnt * self.config.max_new_tokens * self.config.training_of(arm).num_train_epochs
        return self._stage("train", f"{arm}-{seed}", {**settings, "seed": seed}, run, [chosen], tokens)

    def _kept(self, stage: Stage) -> pa.Table:
        table = pq.read_table(stage.directory / "traces")
        return without_cut_off(table) if self.config.overlong == "drop" else table

    def _sample(self, arm: str, seed: int) -> Stage:
        """Arms that draw alike share their traces."""
        decoding = self.config.sampling_of(arm)
        config = SampleConfig(
            model=self.model,
            problems=self.config.problems,
            prompt=self.config.prompt,
            decoding=decoding,
            max_new_tokens=self.config.max_new_tokens,
            top_logprobs=max(20, decoding.top_k),
            engine=self.config.engine,
            seed=seed,
        )

        def run(directory: Path) -> None:
            found = sample(config, directory, self.execution.sampler)
            if failure := found["first_failure"]:
                raise run_dir.RunError(f"some traces failed, the first {failure}; the same command tries again")

        what = f"{setting_of(decoding)}-{seed}".replace(" ", "-").replace("=", "")
        return self._stage("sample", what, _json(config), run, [], self.learnt * self.config.max_new_tokens)

    def _judged(self, sampled: Stage) -> Stage:
        """With a column `correct`."""
        settings = self.config.extraction.model_dump(mode="json")

        def run(directory: Path) -> None:
            config = EvalConfig(
                completions=(Labelled(label="sampled", path=str(sampled.directory)),), extraction=self.config.extraction
            )
            evaluate(config, directory, self._evaluating)
            write(judged(sampled.directory / "traces", directory / "eval" / "samples.parquet"), directory / "traces")

        return self._stage("judge", sampled.what, settings, run, [sampled])

    def _eval(self, arm: str, seed: int) -> Stage:
        """The answers of one model at every decoding of the sweep."""
        label = arm if arm == BASELINE else f"{arm}-{seed}"
        trained = None if arm == BASELINE else self.trained(arm, seed)

        def config() -> EvalConfig:
            return EvalConfig(
                models=(Labelled(label=label, path=self._path(trained)),),
                problems=self.config.asked,
                prompt=self.config.prompt,
                decoding=self.config.decoding,
                sweep=self.config.sweep,
                samples=self.config.samples,
                max_new_tokens=self.config.eval_tokens,
                extraction=self.config.extraction,
                engine=self.config.engine,
            )

        settings = _json(config()) | {"models": label}
        decodings = len(self.config.sweep.of(self.config.decoding))
        tokens = self.asked * self.config.samples * decodings * self.config.eval_tokens

        def run(directory: Path) -> None:
            evaluate(config(), directory, self._evaluating)

        return self._stage("eval", label, settings, run, [trained] if trained else [], tokens)

    @cached_property
    def shown(self) -> Stage:
        """The baseline's answers at which all models are probed, judged."""
        answered = self._eval(BASELINE, 0)
        decoding = self.config.sweep.of(self.config.decoding)[0]

        def run(directory: Path) -> None:
            at = answered.directory / "traces" / Arm(BASELINE, setting_of(decoding)).directory
            table = judged(at, answered.directory / "eval" / "samples.parquet")
            write(some(table, self.config.probe_traces, 0), directory / "traces")

        return self._stage(
            "show", BASELINE, {"count": self.config.probe_traces, "at": _json(decoding)}, run, [answered]
        )

    def _probe(self, arm: str, seed: int) -> Stage:
        trained, shown = self.trained(arm, seed), self.shown

        def config() -> ProbeConfig:
            return ProbeConfig(
                baseline=self.model,
                trained=self._path(trained),
                traces=(Labelled(label=BASELINE, path=str(shown.directory / "traces")),),
                decoding=_probed(self.config.decoding),
                train=_probed(self.config.sampling),
                temperatures=self.config.probe_temperatures,
            )

        settings = _json(config()) | {"trained": "", "traces": ""}

        def run(directory: Path) -> None:
            if failed := probe(config(), directory):
                raise run_dir.RunError(f"{len(failed)} traces could not be scored, the first {failed[0]['trace_id']}")

        tokens = min(self.asked * self.config.samples, self.config.probe_traces or self.asked) * self.config.eval_tokens
        return self._stage("probe", f"{arm}-{seed}", settings, run, [trained, shown], 2 * tokens)

    def trainings(self) -> Iterator[Training]:
        """What the report tells of each, once their stages are done."""
        for arm, seed in self._arms():
            trained = self.trained(arm, seed).directory / "train"
            lines = (trained / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            yield Training(
                arm,
                seed,
                f"{setting_of(self.config.sampling_of(arm))}; {self.config.training_of(arm).loss} loss"
                + _RECIPE_TOLD.get(self.config.arms[arm].like, ""),
                run_dir.read_json(self.chosen(arm, seed).directory / "chosen.json"),
                [json.loads(line) for line in lines],
                self._probe(arm, seed).directory,
            )

    def _path(self, trained: Stage | None) -> str:
        return str(trained.directory / "train" / "model") if trained else self.model

    def _arms(self) -> Iterator[tuple[str, int]]:
        for arm in self.config.arms:
            for seed in self.config.seeds_of(arm):
                yield arm, seed

    @property
    def _evaluating(self) -> EvalExecution:
        return EvalExecution(**self.execution.sampler.model_dump())

    def _stage(
        self, kind: str, what: str, settings: dict[str, Any], run: Any, needs: Iterable[Stage], tokens: int = 0
    ) -> Stage:
        return Stage(kind, what, settings | {"model": self.model}, run, tuple(needs), tokens, self.root)


def _probed(decoding: Any) -> DecodingConfig:
    """As the kernels have it: without min-p and the penalty."""
    return DecodingConfig(**{name: getattr(decoding, name) for name in DecodingConfig.model_fields})


def _json(config: Any) -> dict[str, Any]:
    found: dict[str, Any] = config.model_dump(mode="json")
    return found
