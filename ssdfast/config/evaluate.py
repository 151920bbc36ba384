"""Settings of evaluation: checkpoints or completions, sampling parameters to sweep, answers, and when to stop."""

from __future__ import annotations

import re
from itertools import product
from typing import Annotated, Literal

from pydantic import Field

from .base import NamedPath, Settings
from .conventions import ConventionsConfig
from .sample import ProblemsConfig, PromptConfig, SampleConfig, SampleExecution
from .sampling_params import PRESETS, EngineSamplingParams

GRADING = ("extraction", "conventions", "grader", "on_bad_gold")
"""The settings that decide the grade of an answer."""
Grader = Annotated[str, Field(pattern=r"^([A-Za-z_][\w.]*:[A-Za-z_]\w*)?$")]
"""module:function, or nothing."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


class EvalProblemsConfig(ProblemsConfig):
    """The problems of the evaluation. Of a benchmark only a problem with the same text as an earlier one is dropped."""

    near_duplicate_threshold: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The Jaccard similarity of word 3-grams to an earlier problem from which on a problem is left out; 1 leaves out
    equal texts only."""


class SweepConfig(Settings):
    """Sampling parameters at which every checkpoint is evaluated: all combinations of these values.

    An empty list keeps the value in `sampling`.
    """

    temperature: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """The temperatures to evaluate at; 0 is greedy decoding."""
    top_k: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """The values of top-k to evaluate at; 0 switches top-k off."""
    top_p: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    """The values of top-p to evaluate at; 1 switches top-p off."""
    min_p: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()
    """The values of min-p to evaluate at; 0 switches min-p off."""

    def grid(self, sampling: EngineSamplingParams) -> list[EngineSamplingParams]:
        """Every combination once, temperatures slowest."""
        axes = {name: getattr(self, name) or (getattr(sampling, name),) for name in SweepConfig.model_fields}
        combinations = [
            EngineSamplingParams.model_validate({**sampling.model_dump(), **dict(zip(axes, values, strict=True))})
            for values in product(*axes.values())
        ]
        return list(dict.fromkeys(combinations))


class ExtractionConfig(Settings):
    """How the answer is extracted from a completion: the last balanced \\boxed{} outside the thinking part."""

    strip_thinking: bool = True
    """Ignore boxes in the thinking part."""
    prompt_opens_thinking: bool | None = None
    """Whether the prompt ends inside a thinking part; none reads it off the prompts, or off completions that close a
    thinking part which they did not open."""
    think_start: Annotated[str, Field(min_length=1)] = "<think>"
    """The tag that opens a thinking part."""
    think_end: Annotated[str, Field(min_length=1)] = "</think>"
    """The tag that closes a thinking part."""
    fallback_last_number: bool = False
    """Take the last number as the answer where there is no box."""
    fallback_choice_letter: bool = False
    """Take the letter of a choice ("The answer is (D)") as the answer where there is no box."""


class SequentialConfig(Settings):
    """Group sequential sampling, which stops as soon as a checkpoint is shown to differ from the baseline or not to."""

    equivalence_margin: Annotated[float, Field(ge=0, le=100)] = 0.0
    """The margin in percentage points: a difference inside ± the margin counts as none. 0 samples every problem."""
    max_looks: Annotated[int, Field(ge=1, le=100)] = 5
    """Number of batches of problems, after each of which the test may stop."""


class EvalConfig(Settings):
    """Checkpoints or existing completions, and how their answers are graded and compared."""

    models: tuple[NamedPath, ...] = ()
    """Checkpoints to sample from, each with a name."""
    completions: tuple[NamedPath, ...] = ()
    """Existing completions, each with a name: runs or directories of traces, .parquet or .jsonl files."""
    baseline: str = ""
    """The name of the checkpoint that the others are compared with; empty takes the first."""
    problems: EvalProblemsConfig = EvalProblemsConfig()
    limit: Annotated[int, Field(ge=0)] = 0
    """Number of problems, stratified by source and difficulty; 0 takes all. Smaller subsets are nested: the 300 of a
    seed are among the 1000 of the same seed."""
    prompt: PromptConfig = PromptConfig()
    sampling: EngineSamplingParams = EngineSamplingParams(**PRESETS["math"].eval_sampling.model_dump())
    sweep: SweepConfig = SweepConfig()
    samples_per_problem: Annotated[int, Field(ge=1)] = 1
    """Number of completions per problem, for each checkpoint and each set of sampling parameters."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 49_152
    """The maximum length of a completion in tokens; the model's context may allow fewer."""
    pass_at_k: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """The values of k for which pass@k is reported, at most `samples_per_problem`."""
    extraction: ExtractionConfig = ExtractionConfig()
    conventions: ConventionsConfig = ConventionsConfig()
    grader: Grader = ""
    """A function of yours, as module:function, that scores an answer in the place of the comparison with the gold
    answer. It gets the problem and the answer, and returns a number from 0 to 1, where 1 is correct."""
    on_bad_gold: Literal["error", "skip"] = "error"
    """What to do if a gold answer is missing or cannot be parsed: stop with an error that names the problems, or leave
    them out and list them in the results."""
    sequential: SequentialConfig = SequentialConfig()
    on_prompt_mismatch: Literal["error", "allow"] = "error"
    """What to do if two checkpoints have different prompts for the same problem: stop with an error that names the
    problem, or compare them all the same."""
    on_missing_samples: Literal["error", "allow"] = "error"
    """What to do if completions have fewer samples of some problems, as those of a run that was stopped: the missing
    ones may be the long ones."""
    on_prompt_too_long: Literal["error", "skip"] = "error"
    """What to do if a prompt fills a model's context."""
    engine: Literal["transformers", "vllm", "server"] = "transformers"
    """The sampling engine, as in `ssdfast sample`. A server serves one model, so each needs its own --server.urls and
    its own run."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """The dtype of weights and activations. auto is bfloat16 on a GPU and on a CPU with a matrix unit for it (AMX),
    else float32."""
    seed: int = 0
    """The seed of the samples, of the subset of problems, of the halves of a sweep and of the sign flips."""

    def check(self) -> None:
        """Raises ValueError for settings that do not go together."""
        names = [source.name for source in (*self.models, *self.completions)]
        if not names:
            raise ValueError("there is nothing to evaluate: name checkpoints in models, or files in completions")
        for name in names:
            if not _NAME.fullmatch(name):
                raise ValueError(f"the name {name!r} must be able to name a directory: use letters, digits and _ . + -")
            if names.count(name) > 1:
                raise ValueError(f"the name {name!r} is given twice: give each its own name")
        if self.baseline and self.baseline not in names:
            raise ValueError(f"the baseline {self.baseline!r} is not one of {', '.join(names)}")
        if self.models and self.pass_at_k and max(self.pass_at_k) > self.samples_per_problem:
            raise ValueError(
                f"pass@{max(self.pass_at_k)} needs samples_per_problem of at least {max(self.pass_at_k)}, not"
                f" {self.samples_per_problem}"
            )
        if self.engine == "server" and len(self.models) > 1:
            raise ValueError("the server engine serves one model: evaluate each checkpoint in a run of its own")
        if self.sequential.equivalence_margin:
            self._check_sequential()

    def _check_sequential(self) -> None:
        if len(self.models) < 2 or self.completions:
            raise ValueError(
                "sequential.equivalence_margin stops the sampling of models that are compared: name two or more models"
            )
        if len(self.sampling_grid) > 1:
            raise ValueError(
                "sequential.equivalence_margin compares models at one set of sampling parameters: choose it by a sweep"
                " on other problems, and leave the sweep out here"
            )

    @property
    def sampling_grid(self) -> list[EngineSamplingParams]:
        return self.sweep.grid(self.sampling)

    @property
    def baseline_name(self) -> str:
        return self.baseline or (*self.models, *self.completions)[0].name

    def sample_config(self, model: str) -> SampleConfig:
        """The settings of sampling from a checkpoint with the first set of sampling parameters."""
        return SampleConfig(
            model=model,
            problems=self.problems,
            prompt=self.prompt,
            purpose="evaluation",
            sampling=self.sampling_grid[0],
            samples_per_problem=self.samples_per_problem,
            max_new_tokens=self.max_new_tokens,
            on_prompt_too_long=self.on_prompt_too_long,
            engine=self.engine,
            dtype=self.dtype,
            seed=self.seed,
        )


class EvalExecution(SampleExecution):
    """How sampling and grading run."""

    grader_workers: Annotated[int, Field(ge=0)] = 0
    """Number of processes that grade answers; 0 starts one per core."""
    grader_cpu_seconds: Annotated[float, Field(gt=0)] = 5.0
    """The CPU time in seconds that grading one answer may take."""
