"""Settings of the probe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import Labelled, Settings
from .sampling_params import PRESETS, SamplingParams


class ClassRules(Settings):
    """Thresholds of the position classes; nucleus and tail are those of `decoding`."""

    lock_top1: float = 0.5
    """lock and mixed: the likeliest token has at least this probability; fork and diffuse: less"""
    lock_nucleus: int = 5
    """lock: nucleus of at most this many tokens"""
    lock_tail: float = 0.01
    """lock: at most this mass outside the top k"""
    fork_ratio: float = 0.25
    """fork: the second token has at least this share of the first one's probability"""
    fork_tail: float = 0.10
    """fork: at most this mass outside the top k; diffuse: more"""


class PositionConfig(Settings):
    """Which completion positions are scored, and of which traces."""

    select: Literal["all", "every", "landmarks", "random"] = "all"
    """all of a trace; every n-th; those around landmarks; as many at random"""
    every: Annotated[int, Field(ge=1)] = 10
    """every: one position in this many"""
    landmarks: tuple[Annotated[str, Field(min_length=1)], ...] = (
        "\\boxed",
        "Let",
        "Suppose",
        "Wait",
        "<think>",
        "</think>",
    )
    """landmarks: texts that stand out, as whole words"""
    around: Annotated[int, Field(ge=0)] = 3
    """landmarks: positions before the landmark and after it that are scored with it"""
    count: Annotated[int, Field(ge=1)] = 64
    """random: positions of each trace"""
    carriers: Annotated[int, Field(ge=0)] = 0
    """traces to score, in equal shares of every length, correctness and generator; 0 takes all"""


class TokenClassConfig(Settings):
    """A class of vocabulary entries, by their text without the spaces around it."""

    words: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """texts that belong to it, in any case"""
    regex: str = ""
    """pattern that the whole text must match, in the case given"""


class ProbeConfig(Settings):
    """Two models, traces, and what to measure at every position of every trace."""

    baseline: str
    """model before training: a directory of safetensors or a GGUF file"""
    trained: str
    """model after training, with the same tokenizer"""
    traces: Annotated[tuple[Labelled, ...], Field(min_length=1)]
    """Parquet files, or directories of them, each with the label of who generated it"""
    decoding: SamplingParams = PRESETS["math"].eval_sampling
    train: SamplingParams = PRESETS["math"].train_sampling
    temperatures: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = (0.4, 0.7, 1.0, 1.4, 2.0)
    """temperatures at which the normaliser of the whole vocabulary is kept"""
    top: Annotated[int, Field(ge=2, le=128)] = 20
    """length of the lists of likeliest tokens"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """of weights and activations; logits are float32 either way. bfloat16 hides shifts below about 1e-3 nats"""
    batch_tokens: Annotated[int, Field(ge=1)] = 2048
    """tokens of a forward pass: short traces go together, a long one in chunks"""
    part_positions: Annotated[int, Field(ge=1)] = 32_768
    """positions between two safe points, at least a trace; they wait in memory"""
    positions: PositionConfig = PositionConfig()
    token_classes: dict[str, TokenClassConfig] = Field(default_factory=dict)
    """classes of your own, tried before the built-in ones; one with a built-in name takes its place"""
    parts: str | None = None
    """directory or URL (s3://...) for the table of positions, if not in the run's directory"""
    overlong: Literal["error", "skip"] = "error"
    """what to do with a trace longer than a model's context"""
    classes: ClassRules = ClassRules()
    seed: int = 0
    """of the bootstrap, and of positions and carriers drawn at random"""


class ExecutionConfig(Settings):
    """How a probe runs; the table is the same whichever way."""

    engine: Literal["local", "ray"] = "local"
    """this process (under torchrun, each rank on its own GPU), or actors of a Ray cluster"""
    workers: Annotated[int, Field(ge=1)] = 1
    """ray: actors, each with both models and a GPU where there is one"""
    residency: Literal["auto", "both", "one"] = "auto"
    """both models in memory, or one after the other with hidden states on disk in between; auto: both if they fit"""
    spill_gb: Annotated[float, Field(gt=0)] = 32.0
    """one: most disk for hidden states; the models change places when it is full"""
