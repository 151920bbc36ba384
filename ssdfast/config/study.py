"""Settings of a study: one baseline, arms that differ in what they are trained on, and how they are compared."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .base import Settings, load, unique
from .conventions import ConventionsConfig
from .evaluate import GRADING, EvalProblemsConfig, ExtractionConfig, Grader, SweepConfig
from .probe import BASELINE, ExecutionConfig, TokenClassConfig
from .sample import ProblemsConfig, PromptConfig, SampleExecution
from .sampling_params import PRESETS, EngineSamplingParams
from .train import SCHEDULES, TrainConfig

Recipe = Literal["ssd", "ssd-soft", "control", "length-matched", "temperature-only", "correct-only"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_NO_TRUNCATION = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
_PLAIN = {"temperature": 1.0, **_NO_TRUNCATION}
# What each recipe changes in the study's own settings. `match_lengths` names the arm whose lengths are matched.
RECIPES: dict[str, dict[str, Any]] = {
    "ssd": {},
    "ssd-soft": {"training": {"loss": "soft"}},
    "control": {"train_sampling": _PLAIN},
    "length-matched": {"train_sampling": _PLAIN, "match_lengths": "ssd"},
    "temperature-only": {"train_sampling": _NO_TRUNCATION},
    "correct-only": {"correct_only": True},
}


class ArmConfig(Settings):
    """One way to train a model from the baseline."""

    recipe: Recipe
    """The recipe that the arm starts from: ssd (the study's train_sampling, no filter), ssd-soft (the same traces, soft
    labels), control (temperature 1 without truncation), length-matched (control, resampled to the lengths of the arm
    ssd), temperature-only (the study's temperature without truncation), correct-only (ssd, correct traces only)."""
    train_sampling: dict[str, float | int] = Field(default_factory=dict)
    """Sampling parameters of the arm's training samples that differ from the study's."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Training settings of the arm that differ from the study's."""
    seeds: tuple[int, ...] = ()
    """The seeds of sampling and training; an empty list takes the study's."""

    @model_validator(mode="after")
    def _seeds_differ(self) -> ArmConfig:
        unique(self.seeds, "seed")
        return self


class StudyConfig(Settings):
    """The settings of a study, as `ssdfast study FILE` reads them."""

    model: str
    """The baseline: a directory of safetensors, a GGUF file, or `smollm2` for the model of the demo."""
    train_problems: ProblemsConfig = ProblemsConfig()
    """The problems that the training samples answer."""
    eval_problems: EvalProblemsConfig = EvalProblemsConfig()
    """The problems of the evaluation; none of them may be among `train_problems`."""
    prompt: PromptConfig = PromptConfig()
    train_sampling: EngineSamplingParams = EngineSamplingParams(**PRESETS["math"].train_sampling.model_dump())
    """The sampling parameters of the training samples (T_train)."""
    train_max_new_tokens: Annotated[int, Field(ge=1)] = 32_768
    """The maximum number of tokens of a training sample."""
    truncated_traces: Literal["keep", "drop"] = "keep"
    """What to do with training samples that reached train_max_new_tokens, in every arm."""
    training: TrainConfig = TrainConfig()
    arms: Annotated[dict[str, ArmConfig], Field(min_length=1)]
    """The arms by name; the name of a recipe stands for that recipe."""
    control: str = "control"
    """The arm that the other arms are compared with."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    """The seeds; each gives every arm its own training samples and its own training."""
    eval_sampling: EngineSamplingParams = EngineSamplingParams(**PRESETS["math"].eval_sampling.model_dump())
    """The sampling parameters of the evaluation (T_eval)."""
    sweep: SweepConfig = SweepConfig()
    eval_max_new_tokens: Annotated[int, Field(ge=1)] = 49_152
    """The maximum number of tokens of an answer in the evaluation."""
    samples_per_problem: Annotated[int, Field(ge=1)] = 1
    """The number of answers to each problem of the evaluation, for each combination of the sweep."""
    extraction: ExtractionConfig = ExtractionConfig()
    conventions: ConventionsConfig = ConventionsConfig()
    grader: Grader = ""
    """A function of yours, as module:function, that scores an answer in the place of the comparison with the gold
    answer, as in `ssdfast eval`."""
    on_bad_gold: Literal["error", "skip"] = "error"
    """What to do if a gold answer, of training or of the evaluation, is missing or cannot be parsed: stop before any
    work with an error that names the problems, or leave them out of the accuracies. Their traces are trained on all the
    same, but not by the recipe correct-only."""
    num_probe_traces: Annotated[int, Field(ge=0)] = 200
    """The number of the baseline's answers at which all models are probed; 0 takes all."""
    lse_temperatures: tuple[Annotated[float, Field(gt=0)], ...] = (0.4, 0.7, 0.9, 1.0, 1.1, 1.25, 1.4, 2.0)
    """The temperatures at which the probe computes log-normalizers; a fit of the temperature starts from them."""
    token_classes: dict[str, TokenClassConfig] = Field(default_factory=dict)
    """Your own token classes, as in `ssdfast probe`; the page groups positions by them."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """The engine that samples."""

    @model_validator(mode="before")
    @classmethod
    def _recipe_names(cls, values: Any) -> Any:
        """Arms may be a list of recipes, and a named arm may be a recipe or nothing."""
        if not isinstance(values, dict) or "arms" not in values:
            return values
        arms = values["arms"]
        if isinstance(arms, list | tuple):
            unique(map(str, arms), "arm")
            arms = dict.fromkeys(arms)
        if isinstance(arms, dict):
            arms = {name: _arm(name, arm) for name, arm in arms.items()}
        return {**values, "arms": arms}

    @model_validator(mode="after")
    def _arms_agree(self) -> StudyConfig:
        unique(self.seeds, "seed")
        unique(self.lse_temperatures, "temperature")
        if self.control not in self.arms:
            raise ValueError(
                f"the control {self.control!r} is not among the arms {', '.join(self.arms)}: without a control, a shift"
                " that any training causes cannot be distinguished from self-distillation"
            )
        for name, arm in self.arms.items():
            if not _NAME.fullmatch(name) or name == BASELINE:
                raise ValueError(
                    f"the arm {name!r} names a directory beside {BASELINE!r}: give it another name of letters, digits,"
                    " - and _"
                )
            target = RECIPES[arm.recipe].get("match_lengths")
            if target and target not in self.arms:
                raise ValueError(f"the arm {name} matches the lengths of the arm {target!r}, which does not exist")
            self.arm_sampling(name)
            self.arm_training(name)
        return self

    def arm_sampling(self, arm: str) -> EngineSamplingParams:
        """The sampling parameters of an arm's training samples."""
        changes = {**RECIPES[self.arms[arm].recipe].get("train_sampling", {}), **self.arms[arm].train_sampling}
        values = {**self.train_sampling.model_dump(), **changes}
        return load(EngineSamplingParams, values, f"arms.{arm}.train_sampling")

    def arm_training(self, arm: str) -> TrainConfig:
        """The training settings of an arm."""
        changes = {**RECIPES[self.arms[arm].recipe].get("training", {}), **self.arms[arm].training}
        return load(TrainConfig, {**self.training.model_dump(), **changes}, f"arms.{arm}.training")

    def grading(self) -> dict[str, Any]:
        """The settings that decide the grade of an answer, as EvalConfig has them."""
        return {name: getattr(self, name) for name in GRADING}

    def arm_seeds(self, arm: str) -> tuple[int, ...]:
        """The seeds of an arm."""
        return self.arms[arm].seeds or self.seeds


def _arm(name: Any, arm: Any) -> Any:
    if arm is None:
        return {"recipe": name}
    if isinstance(arm, str):
        return {"recipe": arm}
    return {"recipe": name, **arm} if isinstance(arm, dict) and name in RECIPES else arm


def _paper_study(preset: str) -> dict[str, Any]:
    return {
        "train_sampling": PRESETS[preset].train_sampling.model_dump(),
        "eval_sampling": PRESETS[preset].eval_sampling.model_dump(),
        "train_max_new_tokens": 65_536,
        "samples_per_problem": 10,
        "sweep": {"temperature": (0.7, 0.8, 0.9, 1.0, 1.1)},
        "arms": ("ssd", "ssd-soft", "control", "length-matched"),
        "seeds": (0, 1, 2, 3, 4),
    }


STUDIES: dict[str, dict[str, Any]] = {
    "paper-4b-instruct": _paper_study("paper-4b-instruct"),
    "paper-30b-instruct": _paper_study("paper-30b-instruct"),
    "paper-4b-thinking": _paper_study("paper-4b-thinking"),
    "math": {
        "training": {"warmup_steps": SCHEDULES["math"]["warmup_steps"]},
        "sweep": {"temperature": (0.6, 0.7, 1.0, 1.1, 1.3, 1.5)},
        "samples_per_problem": 4,
        "arms": ("ssd", "ssd-soft", "control", "length-matched"),
        "seeds": (0, 1, 2, 3, 4),
    },
    "demo": {
        "model": "smollm2",
        "train_max_new_tokens": 48,
        "eval_max_new_tokens": 48,
        "training": SCHEDULES["demo"],
        "extraction": {"fallback_last_number": True},
        "arms": ("ssd", "ssd-soft", "control"),
    },
}
"""The settings that `preset` in a study file, or the preset's name in place of a file, stands for."""


class StudyExecution(Settings):
    """How a study runs."""

    only_arms: tuple[str, ...] = ()
    """Run the stages of these arms only; another machine can run those of the others in the same directory."""
    estimate: bool = False
    """Print what is done and what remains, with tokens, times and memory, and stop."""
    max_spill_gb: Annotated[float, Field(gt=0)] = ExecutionConfig.model_fields["max_spill_gb"].default
    """The largest size of the baseline's hidden states on disk, which all probes share: positions x hidden size x 4
    bytes. With more than that, every probe reads the traces with the baseline again."""
    engine_args: SampleExecution = SampleExecution()
    """How the sampling engine runs."""
