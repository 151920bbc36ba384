"""Settings of sampling: problems, prompts, sampling parameters, and how the engines run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import Settings
from .sampling_params import PRESETS, EngineSamplingParams

Fraction = Annotated[float, Field(ge=0, le=1)]


class ColumnsConfig(Settings):
    """Names of the columns (keys) of a problem file or dataset; an empty name stands for the usual ones."""

    question: str = ""
    """The column of the question."""
    answer: str = ""
    """The column of the gold answer."""
    problem_id: str = ""
    """The column of the problem's id."""
    difficulty: str = ""
    """The column of the difficulty."""
    source: str = ""
    """The column of the source."""


class ProblemsConfig(Settings):
    """Which problems are used."""

    sources: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """The sources of problems, each of them a .jsonl, .parquet or .csv file, reasoning-gym:GENERATOR, champ, or
    hf:DATASET[/SUBSET][@SPLIT]."""
    limit_per_source: Annotated[int, Field(ge=0)] = 0
    """The number of problems that are read from each source, in its order; 0 reads all. reasoning-gym requires one."""
    generator_options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """Options of the reasoning-gym generator."""
    columns: ColumnsConfig = ColumnsConfig()
    on_malformed: Literal["error", "skip"] = "error"
    """What to do with a line that holds no valid problem: `error` stops and names the line, `skip` logs and skips
    it."""
    near_duplicate_threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    """The Jaccard similarity of word 3-grams from which a problem counts as a near duplicate of an earlier one and is
    skipped; 1 skips equal texts only."""
    decontaminate_against: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """The sources of the evaluation problems; a problem that is a near duplicate of one of these is contaminated."""
    on_contamination: Literal["error", "drop", "keep"] = "error"
    """What to do with contaminated problems, which are logged in any case."""
    seed: int = 0
    """The seed of generated problems."""


class FewshotExample(Settings):
    """A worked example that precedes the question."""

    question: str
    answer: str


class PromptConfig(Settings):
    """How a problem is worded as a prompt, in the model's own chat template."""

    system: str = ""
    """The system message; an empty one is left out."""
    instruction: str = "{question}\n\nPlease reason step by step, and put your final answer within \\boxed{}."
    """The user's turn, in which {question} is replaced with the problem."""
    fewshot: tuple[FewshotExample, ...] = ()
    """Few-shot examples, which are written as earlier turns with the same instruction."""
    enable_thinking: bool | None = None
    """Switches the thinking mode of a model that has one; none leaves it to the template."""
    chat_template: str = ""
    """The file of a Jinja template that replaces the tokenizer's."""

    @model_validator(mode="after")
    def _instruction_has_question(self) -> PromptConfig:
        if "{question}" not in self.instruction:
            raise ValueError("instruction must contain {question}, which is replaced with the problem")
        return self


class LoopConfig(Settings):
    """A completion that repeats one period of tokens is stopped, with the finish reason `loop`."""

    min_repeats: Annotated[int, Field(ge=2)] | None = None
    """The number of consecutive repetitions that count as a loop; none is 4 for training."""
    min_tokens: Annotated[int, Field(ge=64)] = 128
    """The number of tokens that all repetitions together must have."""
    max_period: Annotated[int, Field(ge=1)] = 1024
    """The length of the longest period that is detected, in tokens."""
    audit_fraction: Fraction = 0.0
    """The fraction of traces, chosen at random, that continue after a loop. They show how many would have ended
    naturally."""


class SampleConfig(Settings):
    """A frozen model, problems, and how completions are sampled."""

    model: str
    """A directory of safetensors or a GGUF file; the server engine reads only its tokenizer and its settings."""
    problems: ProblemsConfig = ProblemsConfig()
    prompt: PromptConfig = PromptConfig()
    purpose: Literal["training", "evaluation"] = "training"
    """For `training`, the preset's train_sampling is used and completions that loop are stopped. For `evaluation`, the
    preset's eval_sampling is used and no loop is stopped."""
    sampling: EngineSamplingParams = EngineSamplingParams(**PRESETS["math"].train_sampling.model_dump())
    samples_per_problem: Annotated[int, Field(ge=1)] = 1
    """The number of completions of each problem."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 32_768
    """The maximum length of a completion; the model's context may allow less."""
    top_logprobs: Annotated[int, Field(ge=0, le=128)] = 0
    """The number of most likely tokens whose log-probabilities are stored at each step, before temperature and
    truncation."""
    loops: LoopConfig = LoopConfig()
    on_prompt_too_long: Literal["error", "skip"] = "error"
    """What to do with a prompt that fills the model's context."""
    engine: Literal["transformers", "vllm", "server"] = "transformers"
    """The sampling engine: transformers runs everywhere, vllm needs vLLM on this machine, and server sends requests to
    vLLM's OpenAI-compatible servers."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """The dtype of weights and activations. auto is bfloat16 on a GPU and on a CPU with a matrix unit for it (AMX),
    else float32. In float32 on a CPU, a trace depends on its seed and not on the other traces of its batch, so that a
    run that was stopped ends with the same traces as any other; in bfloat16, with traces of the same distribution."""
    seed: int = 0
    """The seed of the samples; each trace has a seed of its own, made from it."""

    @model_validator(mode="after")
    def _evaluation_stops_no_loops(self) -> SampleConfig:
        if self.purpose == "evaluation" and self.loops.min_repeats:
            raise ValueError("loops.min_repeats stops traces early, which biases an evaluation: leave it out")
        return self

    @property
    def loop_min_repeats(self) -> int:
        """The number of consecutive repetitions that count as a loop; 0 where loops are not detected."""
        return 0 if self.purpose == "evaluation" else self.loops.min_repeats or 4


class ServerConfig(Settings):
    """OpenAI-compatible servers that return token ids (vLLM's)."""

    urls: tuple[Annotated[str, Field(pattern=r"^https?://")], ...] = ()
    """One or more base URLs, up to and including /v1; requests are balanced between them."""
    served_model_name: str = ""
    """The name of the model on the server; empty where the server has only one."""
    max_concurrent_requests: Annotated[int, Field(ge=1)] = 64
    """The maximum number of requests in flight at each URL."""
    read_timeout: Annotated[float, Field(gt=0)] = 300.0
    """The number of seconds without a token after which a request has failed."""
    max_retries: Annotated[int, Field(ge=0)] = 5
    """The number of retries of a failed request, with increasing pauses."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable with the API key, for a server that requires one."""


class VllmConfig(Settings):
    """vLLM in this process; the names are vLLM's."""

    tensor_parallel_size: Annotated[int, Field(ge=1)] = 1
    """The number of GPUs that the model is split over."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """The fraction of a GPU's memory that vLLM may use."""
    max_num_seqs: Annotated[int, Field(ge=1)] = 256
    """The maximum number of traces that are sampled at the same time."""


class SampleExecution(Settings):
    """How sampling runs."""

    report_to: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Experiment trackers that get the numbers of the run when it ends: tensorboard, wandb or trackio."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """The number of traces that the transformers engine samples at the same time."""
    server: ServerConfig = ServerConfig()
    vllm: VllmConfig = VllmConfig()
    num_threads: Annotated[int, Field(ge=0)] = 0
    """The number of threads to compute with on a CPU; 0 takes as many as there are free cores, or OMP_NUM_THREADS."""
    price_per_hour: Annotated[float, Field(ge=0)] = 0.0
    """The price of this machine per hour, for the estimated cost; 0 leaves the cost out."""
