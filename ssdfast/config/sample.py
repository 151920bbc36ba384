"""Settings of sampling: problems, prompts, decoding, and how the engines run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import Settings
from .sampling_params import PRESETS, SamplingConfig

Share = Annotated[float, Field(ge=0, le=1)]


class ColumnsConfig(Settings):
    """Names of the columns (keys) of a problem file or dataset; an empty one is looked for under the usual names."""

    question: str = ""
    answer: str = ""
    problem_id: str = ""
    difficulty: str = ""
    source: str = ""


class ProblemsConfig(Settings):
    """Which problems are asked."""

    sources: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """each one: a .jsonl, .parquet or .csv file; reasoning-gym:GENERATOR; champ; hf:DATASET[/SUBSET][@SPLIT]"""
    count: Annotated[int, Field(ge=0)] = 0
    """problems to take of each source, the first ones; 0 takes all (reasoning-gym needs a number)"""
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """settings of the reasoning-gym generator"""
    columns: ColumnsConfig = ColumnsConfig()
    malformed: Literal["stop", "skip"] = "stop"
    """what to do with a line that is no problem: stop and name it, or name it and go on"""
    near_duplicates: Annotated[float, Field(gt=0, le=1)] = 0.8
    """a problem this similar to an earlier one is left out (Jaccard, word 3-grams); 1 leaves out equal texts only"""
    held_out: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """sources of the evaluation: problems too similar to one of theirs are contamination"""
    contaminated: Literal["stop", "drop", "keep"] = "stop"
    """what to do with contamination, which is named either way"""
    seed: int = 0
    """of generated problems"""


class Example(Settings):
    """A worked example that goes before the question."""

    question: str
    answer: str


class PromptConfig(Settings):
    """How a problem is put to the model, in its own chat template."""

    system: str = ""
    """system message; empty for none"""
    instruction: str = "{question}\n\nPlease reason step by step, and put your final answer within \\boxed{}."
    """the user's turn; {question} stands for the problem"""
    examples: tuple[Example, ...] = ()
    """few-shot examples, as earlier turns, worded by the same instruction"""
    thinking: bool | None = None
    """thinking mode of models that have one; none leaves it to the template"""
    chat_template: str = ""
    """file of a Jinja template to use in place of the tokenizer's"""

    @model_validator(mode="after")
    def _asks(self) -> PromptConfig:
        if "{question}" not in self.instruction:
            raise ValueError("instruction must contain {question}, or no problem is asked")
        return self


class LoopConfig(Settings):
    """A completion that repeats one period again and again is ended and marked `loop`."""

    repeats: Annotated[int, Field(ge=2)] | None = None
    """times that a period stands in a row; none is 4 for training"""
    min_tokens: Annotated[int, Field(ge=64)] = 128
    """of all repetitions together"""
    max_period: Annotated[int, Field(ge=1)] = 1024
    """longest period looked for, in tokens"""
    audit: Share = 0.0
    """share of traces, drawn at random, that run on after a loop, to learn how many would have ended by themselves"""


class SampleConfig(Settings):
    """A frozen model, problems, and how its answers are drawn."""

    model: str
    """directory of safetensors or a GGUF file; the server engine needs its tokenizer and settings alone"""
    problems: ProblemsConfig = ProblemsConfig()
    prompt: PromptConfig = PromptConfig()
    purpose: Literal["training", "evaluation"] = "training"
    """training: decoding is the preset's for training data, and loops are ended; evaluation: the preset's for that, and
    every trace runs to its end"""
    decoding: SamplingConfig = SamplingConfig(**PRESETS["math"].train.model_dump())
    samples: Annotated[int, Field(ge=1)] = 1
    """completions of each problem"""
    max_new_tokens: Annotated[int, Field(ge=1)] = 32_768
    """of a completion; the model's context may allow fewer"""
    top_logprobs: Annotated[int, Field(ge=0, le=128)] = 0
    """log-probabilities to keep at each step: of the likeliest tokens, before temperature and truncation"""
    loops: LoopConfig = LoopConfig()
    overlong: Literal["error", "skip"] = "error"
    """what to do with a prompt that fills the model's context"""
    engine: Literal["transformers", "vllm", "server"] = "transformers"
    """transformers runs anywhere; vllm needs vLLM here; server asks vLLM's OpenAI-compatible servers"""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """of weights and activations; auto: bfloat16 on a GPU, float32 on a CPU, where a trace then depends on its seed
    and not on those beside it"""
    seed: int = 0

    @model_validator(mode="after")
    def _evaluation_has_no_loops(self) -> SampleConfig:
        if self.purpose == "evaluation" and self.loops.repeats:
            raise ValueError("loops.repeats ends traces early, which evaluation must not: leave it out")
        return self

    @property
    def loop_repeats(self) -> int:
        """Times that a period may stand in a row; 0 where loops are not looked for."""
        return 0 if self.purpose == "evaluation" else self.loops.repeats or 4


class ServerConfig(Settings):
    """OpenAI-compatible servers that return token ids (vLLM's)."""

    urls: tuple[Annotated[str, Field(pattern=r"^https?://")], ...] = ()
    """one or several, up to and including /v1; requests are spread over them"""
    served_model: str = ""
    """the model's name there; empty where the server has only one"""
    concurrency: Annotated[int, Field(ge=1)] = 64
    """requests in flight at each URL"""
    timeout: Annotated[float, Field(gt=0)] = 300.0
    """seconds without a token after which a request has failed"""
    retries: Annotated[int, Field(ge=0)] = 5
    """more attempts for a request that failed, each after a longer pause"""
    api_key_env: str = "OPENAI_API_KEY"
    """environment variable with the key, if the server wants one"""


class VllmConfig(Settings):
    """vLLM in this process."""

    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    """GPUs that share one model"""
    gpu_memory: Annotated[float, Field(gt=0, le=1)] = 0.9
    """share of a GPU's memory"""
    in_flight: Annotated[int, Field(ge=1)] = 256
    """traces at once"""


class SampleExecution(Settings):
    """How sampling runs."""

    batch: Annotated[int, Field(ge=1)] = 64
    """transformers: traces at once"""
    server: ServerConfig = ServerConfig()
    vllm: VllmConfig = VllmConfig()
    price: Annotated[float, Field(ge=0)] = 0.0
    """of an hour of this machine, for the estimate of the cost; 0 for none"""
