"""Settings of evaluation: checkpoints or completions, the sweep of decodings, answers, and when to stop."""

from __future__ import annotations

import re
from itertools import product
from typing import Annotated, Literal

from pydantic import Field

from .base import NamedPath, Settings
from .sample import ProblemsConfig, PromptConfig, SampleConfig, SampleExecution
from .sampling_params import PRESETS, EngineSamplingParams

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


class AskedConfig(ProblemsConfig):
    """Which problems are asked; of a benchmark none is left out but for one that is there twice."""

    near_duplicate_threshold: Annotated[float, Field(gt=0, le=1)] = 1.0
    """a problem this similar to an earlier one is left out (Jaccard, word 3-grams); 1 leaves out equal texts only"""


class SweepConfig(Settings):
    """Decodings that every checkpoint is evaluated at: all combinations. An empty list keeps what `decoding` says."""

    temperature: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = ()
    top_k: tuple[Annotated[int, Field(ge=0)], ...] = ()
    top_p: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    min_p: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()

    def of(self, decoding: EngineSamplingParams) -> list[EngineSamplingParams]:
        """Every combination once, temperatures slowest."""
        axes = {name: getattr(self, name) or (getattr(decoding, name),) for name in SweepConfig.model_fields}
        made = [decoding.model_copy(update=dict(zip(axes, values, strict=True))) for values in product(*axes.values())]
        return list(dict.fromkeys(made))


class ExtractionConfig(Settings):
    """Where in a completion the answer is looked for: the last balanced \\boxed{} outside the thinking part."""

    thinking: bool = True
    """leave the thinking part out"""
    starts_thinking: bool | None = None
    """the prompt opens the thinking part; none finds out from the prompts, or from completions that close one"""
    open_tag: Annotated[str, Field(min_length=1)] = "<think>"
    close_tag: Annotated[str, Field(min_length=1)] = "</think>"
    last_number: bool = False
    """where there is no box, take the last number"""
    letter: bool = False
    """where there is no box, take the letter of a choice ("The answer is (D)")"""


class SequentialConfig(Settings):
    """Sampling in batches of problems that ends when the question is decided: is a checkpoint unlike the baseline?"""

    margin: Annotated[float, Field(ge=0, le=100)] = 0.0
    """percentage points; a difference inside +- margin is as good as none. 0 samples every problem"""
    looks: Annotated[int, Field(ge=1, le=100)] = 5
    """batches, after each of which the question may be decided"""


class EvalConfig(Settings):
    """Checkpoints, or completions from elsewhere, and how their answers are judged and compared."""

    models: tuple[NamedPath, ...] = ()
    """checkpoints to sample, each with a label"""
    completions: tuple[NamedPath, ...] = ()
    """what others have sampled: runs or directories of traces, .parquet or .jsonl files"""
    baseline: str = ""
    """label of what the others are compared with; empty is the first"""
    problems: AskedConfig = AskedConfig()
    budget: Annotated[int, Field(ge=0)] = 0
    """problems to ask, a fair part of all by source and difficulty; 300 are among 1000 of the same seed; 0 asks all"""
    prompt: PromptConfig = PromptConfig()
    decoding: EngineSamplingParams = EngineSamplingParams(**PRESETS["math"].eval_sampling.model_dump())
    sweep: SweepConfig = SweepConfig()
    samples: Annotated[int, Field(ge=1)] = 1
    """completions of each problem, for each checkpoint and decoding"""
    max_new_tokens: Annotated[int, Field(ge=1)] = 49_152
    """of a completion; the model's context may allow fewer"""
    pass_at: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """k of each pass@k to report, at most `samples`"""
    extraction: ExtractionConfig = ExtractionConfig()
    sequential: SequentialConfig = SequentialConfig()
    other_prompts: Literal["stop", "keep"] = "stop"
    """what to do where two checkpoints were asked the same problem in other words: stop and name it, or compare"""
    uneven: Literal["stop", "keep"] = "stop"
    """what to do with completions that have fewer samples of some problems, as those of a run that was stopped: what
    is missing may be what was long"""
    overlong: Literal["error", "skip"] = "error"
    """what to do with a prompt that fills a model's context"""
    engine: Literal["transformers", "vllm", "server"] = "transformers"
    """as in `ssdfast sample`; a server serves one model, so give each its own --server.urls and run"""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """of weights and activations; auto: bfloat16 on a GPU, float32 on a CPU"""
    seed: int = 0
    """of the samples, the budget, the halves and the bootstrap"""

    def check(self) -> None:
        """Raises ValueError for settings that do not go together."""
        labels = [one.name for one in (*self.models, *self.completions)]
        if not labels:
            raise ValueError("nothing is evaluated: name checkpoints in models, or files of completions")
        for label in labels:
            if not _LABEL.fullmatch(label):
                raise ValueError(f"the label {label!r} is to name a directory: use letters, digits and _ . + -")
            if labels.count(label) > 1:
                raise ValueError(f"the label {label!r} is there twice: give each its own")
        if self.baseline and self.baseline not in labels:
            raise ValueError(f"the baseline {self.baseline!r} is none of {', '.join(labels)}")
        if self.models and self.pass_at and max(self.pass_at) > self.samples:
            raise ValueError(f"pass@{max(self.pass_at)} needs as many samples of each problem, not {self.samples}")
        if self.engine == "server" and len(self.models) > 1:
            raise ValueError("the server engine asks one model: evaluate each checkpoint in a run of its own")
        if self.sequential.margin:
            self._check_sequential()

    def _check_sequential(self) -> None:
        if len(self.models) < 2 or self.completions:
            raise ValueError("sequential.margin ends the sampling of models that are compared: name two or more models")
        if len(self.decodings) > 1:
            raise ValueError(
                "sequential.margin answers one question at one decoding: choose it by a sweep on other problems, and"
                " leave the sweep out here"
            )

    @property
    def decodings(self) -> list[EngineSamplingParams]:
        return self.sweep.of(self.decoding)

    @property
    def baseline_label(self) -> str:
        return self.baseline or (*self.models, *self.completions)[0].name

    def sampling_of(self, model: str) -> SampleConfig:
        """The settings of sampling a checkpoint at the first decoding."""
        return SampleConfig(
            model=model,
            problems=self.problems,
            prompt=self.prompt,
            purpose="evaluation",
            sampling=self.decodings[0],
            samples_per_problem=self.samples,
            max_new_tokens=self.max_new_tokens,
            on_prompt_too_long=self.overlong,
            engine=self.engine,
            dtype=self.dtype,
            seed=self.seed,
        )


class EvalExecution(SampleExecution):
    """How sampling and checking run."""

    checkers: Annotated[int, Field(ge=0)] = 0
    """processes that check answers; 0 is one a core"""
    check_seconds: Annotated[float, Field(gt=0)] = 5.0
    """for a check, of its own processor time"""
