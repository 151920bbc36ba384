"""Settings of a study: one baseline, arms that differ in what they are trained on, and how they are compared."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .base import Settings
from .evaluate import AskedConfig, ExtractionConfig, SweepConfig
from .sample import ProblemsConfig, PromptConfig, SampleExecution
from .sampling_params import PRESETS, SamplingConfig
from .train import SCHEDULES, TrainConfig

Word = Literal["ssd", "ssd-expected", "control", "length-matched", "hot-no-truncation", "correct-only"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
# What each word changes of the study's own sampling and training.
RECIPES: dict[str, dict[str, Any]] = {
    "ssd": {},
    "ssd-expected": {"training": {"loss": "soft"}},
    "control": {"sampling": _PLAIN},
    "length-matched": {"sampling": _PLAIN, "lengths_of": "ssd"},
    "hot-no-truncation": {"sampling": {"top_k": 0, "top_p": 1.0, "min_p": 0.0}},
    "correct-only": {"correct_only": True},
}


class ArmConfig(Settings):
    """One way to make a trained model of the baseline."""

    like: Word
    """what it starts from: ssd (the study's sampling, raw), ssd-expected (the same traces, the soft loss), control
    (T = 1 without truncation), length-matched (control, drawn again to the lengths of the arm ssd), hot-no-truncation
    (the study's temperature alone), correct-only (ssd, of right answers alone)"""
    sampling: dict[str, float | int] = Field(default_factory=dict)
    """settings of its decoding, over the study's"""
    training: dict[str, Any] = Field(default_factory=dict)
    """settings of its training, over the study's"""
    seeds: tuple[int, ...] = ()
    """of sampling and training; empty takes the study's"""


class StudyConfig(Settings):
    """What `ssdfast study FILE` reads."""

    model: str
    """the baseline: a directory of safetensors, a GGUF file, or `smollm2` for the one of the demo"""
    problems: ProblemsConfig = ProblemsConfig()
    """what the traces to learn from answer"""
    asked: AskedConfig = AskedConfig()
    """what the evaluation asks; none of them may be among `problems`"""
    prompt: PromptConfig = PromptConfig()
    sampling: SamplingConfig = SamplingConfig(**PRESETS["math"].train.model_dump())
    """of the traces to learn from"""
    max_new_tokens: Annotated[int, Field(ge=1)] = 32_768
    """of a trace to learn from"""
    overlong: Literal["keep", "drop"] = "keep"
    """what to do with traces that were cut off at max_new_tokens, in every arm"""
    training: TrainConfig = TrainConfig()
    arms: Annotated[dict[str, ArmConfig], Field(min_length=1)]
    """by name; a word of its own stands for itself"""
    control: str = "control"
    """the arm that the others are compared with"""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    """each makes its own traces and its own training of every arm"""
    decoding: SamplingConfig = SamplingConfig(**PRESETS["math"].decoding.model_dump())
    """of the evaluation"""
    sweep: SweepConfig = SweepConfig()
    eval_tokens: Annotated[int, Field(ge=1)] = 49_152
    """of an answer in the evaluation"""
    samples: Annotated[int, Field(ge=1)] = 1
    """answers to each problem asked, at each decoding of the sweep"""
    extraction: ExtractionConfig = ExtractionConfig()
    probe_traces: Annotated[int, Field(ge=0)] = 200
    """traces of the baseline on the problems asked at which all models are probed; 0 takes all"""
    probe_temperatures: tuple[Annotated[float, Field(gt=0)], ...] = (0.4, 0.7, 0.9, 1.0, 1.1, 1.25, 1.4, 2.0)
    """the first place where a fit of the temperature looks"""
    engine: Literal["transformers", "vllm"] = "transformers"

    @model_validator(mode="before")
    @classmethod
    def _words(cls, values: Any) -> Any:
        """Arms may be a list of words, and a named arm may be a word or nothing."""
        if not isinstance(values, dict) or "arms" not in values:
            return values
        arms = values["arms"]
        if isinstance(arms, list | tuple):
            arms = dict.fromkeys(arms)
        if isinstance(arms, dict):
            arms = {name: _arm(name, arm) for name, arm in arms.items()}
        return {**values, "arms": arms}

    @model_validator(mode="after")
    def _agrees(self) -> StudyConfig:
        if self.control not in self.arms:
            raise ValueError(
                f"the control {self.control!r} is none of the arms {', '.join(self.arms)}: without one, movement that"
                " any training makes cannot be told from self-distillation's"
            )
        for name, arm in self.arms.items():
            if not _NAME.fullmatch(name):
                raise ValueError(f"the arm {name!r}: it names a directory, so letters, digits, - and _ alone")
            target = RECIPES[arm.like].get("lengths_of")
            if target and target not in self.arms:
                raise ValueError(f"the arm {name} is drawn to the lengths of the arm {target!r}, which is not there")
            self.sampling_of(name)
            self.training_of(name)
        return self

    def sampling_of(self, arm: str) -> SamplingConfig:
        """How the traces that an arm learns from are drawn."""
        changes = {**RECIPES[self.arms[arm].like].get("sampling", {}), **self.arms[arm].sampling}
        return SamplingConfig.model_validate({**self.sampling.model_dump(), **changes})

    def training_of(self, arm: str) -> TrainConfig:
        changes = {**RECIPES[self.arms[arm].like].get("training", {}), **self.arms[arm].training}
        return TrainConfig.model_validate({**self.training.model_dump(), **changes})

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        return self.arms[arm].seeds or self.seeds


def _arm(name: Any, arm: Any) -> Any:
    if arm is None:
        return {"like": name}
    if isinstance(arm, str):
        return {"like": arm}
    return {"like": name, **arm} if isinstance(arm, dict) and name in RECIPES else arm


STUDIES: dict[str, dict[str, Any]] = {
    "paper": {
        "sampling": {**PRESETS["paper"].train.model_dump()},
        "decoding": {**PRESETS["paper"].decoding.model_dump()},
        "max_new_tokens": 65_536,
        "samples": 10,
        "sweep": {"temperature": (0.7, 0.8, 0.9, 1.0, 1.1)},
        "arms": ("ssd", "ssd-expected", "control", "length-matched"),
        "seeds": (0, 1, 2),
    },
    "math": {
        "training": {"warmup_steps": SCHEDULES["math"]["warmup_steps"]},
        "sweep": {"temperature": (0.6, 0.7, 1.0, 1.1, 1.3, 1.5)},
        "samples": 4,
        "arms": ("ssd", "ssd-expected", "control", "length-matched"),
        "seeds": (0, 1, 2),
    },
    "demo": {
        "model": "smollm2",
        "max_new_tokens": 48,
        "eval_tokens": 48,
        "training": SCHEDULES["demo"],
        "extraction": {"last_number": True},
        "arms": ("ssd", "ssd-expected", "control"),
        "seeds": (0, 1),
    },
}
"""what a file's `preset` stands for, under the file's own settings"""


class StudyExecution(Settings):
    """How a study runs."""

    arms: tuple[str, ...] = ()
    """run the stages of these arms alone, as another machine may those of others; what joins them waits for all"""
    dry_run: bool = False
    """say what is done and what is to do, with tokens and times, and stop"""
    sampler: SampleExecution = SampleExecution()
