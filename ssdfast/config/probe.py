"""Settings of the probe."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from .base import NamedPath, Settings, unique
from .sampling_params import PRESETS, SamplingParams

BASELINE = "baseline"
"""The name of the baseline among the models of a probe."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class PositionClassConfig(Settings):
    """Thresholds of the position classes. Nucleus and tail are those of `eval_sampling`."""

    lock_min_top1: float = 0.5
    """The smallest top-1 probability of a lock and of a mixed position; forks and diffuse positions have less."""
    lock_max_nucleus: int = 5
    """The largest nucleus of a lock, in tokens."""
    lock_max_tail: float = 0.01
    """The largest probability mass of a lock outside the top k."""
    fork_min_ratio: float = 0.25
    """The smallest ratio of a fork's second probability to its first."""
    fork_max_tail: float = 0.10
    """The largest probability mass of a fork outside the top k; diffuse positions have more."""


class PositionConfig(Settings):
    """Which completion positions are scored, and of which traces."""

    select: Literal["all", "stride", "landmarks", "random"] = "all"
    """The positions of each trace that are scored: all, one per stride, those near landmarks, or a random sample."""
    stride: Annotated[int, Field(ge=1)] = 10
    """The distance between scored positions, with `select: stride`."""
    landmarks: tuple[Annotated[str, Field(min_length=1)], ...] = (
        "\\boxed",
        "Let",
        "Suppose",
        "Wait",
        "<think>",
        "</think>",
    )
    """The texts near which positions are scored, with `select: landmarks`; those that begin with a letter match as
    whole words."""
    window: Annotated[int, Field(ge=0)] = 3
    """The number of positions that are scored before a landmark and after it."""
    per_trace: Annotated[int, Field(ge=1)] = 64
    """The number of positions that are sampled from each trace, with `select: random`."""
    max_traces: Annotated[int, Field(ge=0)] = 0
    """The largest number of traces to score, sampled evenly by length, correctness and source; 0 takes all."""


class TokenClassConfig(Settings):
    """A class of vocabulary entries, by their text without the spaces around it."""

    words: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """The texts that belong to the class, in upper or lower case."""
    regex: str = ""
    """The regular expression that matches the whole text of the tokens that belong to the class; it is case
    sensitive."""


class BaselinePath(Settings):
    baseline: str
    """The model before training: a directory of safetensors or a GGUF file."""


class _Pair(BaselinePath):
    trained: str
    """The model after training; it must have the same tokenizer."""


class _Models(BaselinePath):
    trained: Annotated[tuple[NamedPath, ...], Field(min_length=1)]
    """The models after training, by name; they must have the baseline's tokenizer."""


class ProbeSettings(Settings):
    """What to measure, and at which positions of which traces."""

    traces: Annotated[tuple[NamedPath, ...], Field(min_length=1)]
    """The traces: Parquet files or directories of them, as NAME=PATH or PATH. The name is the trace source in the
    results; by default it is the last part of the path."""
    eval_sampling: SamplingParams = PRESETS["math"].eval_sampling
    """The sampling parameters of evaluation, which define nucleus, support and tail."""
    train_sampling: SamplingParams = PRESETS["math"].train_sampling
    """The sampling parameters of the training samples, toward which self-distillation trains. Where they are not given,
    the run that trained the model records them, or else the run that sampled the traces for training."""
    lse_temperatures: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = (0.4, 0.7, 1.0, 1.4, 2.0)
    """The temperatures at which the log-sum-exp of all logits is stored."""
    top_logprobs: Annotated[int, Field(ge=2, le=128)] = 20
    """The number of most likely tokens whose log-probabilities are stored."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """The dtype of weights and activations; logits are float32 either way. bfloat16 hides shifts below about 1e-3
    nats, so it is never the default, however fast a processor multiplies it."""
    max_batch_tokens: Annotated[int, Field(ge=1)] = 2048
    """The largest number of tokens per forward pass: short traces are batched, long ones are split into chunks."""
    positions_per_shard: Annotated[int, Field(ge=1)] = 32_768
    """The largest number of positions per shard of the table; a shard holds at least one trace and waits in memory."""
    positions: PositionConfig = PositionConfig()
    token_classes: dict[str, TokenClassConfig] = Field(default_factory=dict)
    """Your own token classes. They are tried before the built-in ones; one with a built-in name replaces it."""
    table_dir: str | None = None
    """The directory or URL (s3://...) of the table of positions; without it, `positions` in the run directory."""
    on_too_long: Literal["error", "skip"] = "error"
    """What to do with a trace that does not fit a model's context."""
    position_classes: PositionClassConfig = PositionClassConfig()
    seed: int = 0
    """The seed of the bootstrap, and of positions and traces that are sampled."""

    @model_validator(mode="after")
    def _nothing_is_repeated(self) -> Self:
        unique(self.lse_temperatures, "temperature")
        unique((os.path.realpath(source.path) for source in self.traces), "source of traces")
        return self


class ProbeConfig(ProbeSettings, _Pair):
    """Two models, traces, and what to measure at the positions of the traces."""

    def without_trained(self) -> ProbeConfig:
        """What the baseline's columns depend on: no trained model, and no sampling parameters of its training."""
        unrelated = ProbeConfig.model_fields["train_sampling"].default
        return self.model_copy(update={"trained": "", "train_sampling": unrelated})


class ManyProbesConfig(ProbeSettings, _Models):
    """A baseline and several trained models, traces, and what to measure at their positions."""

    @field_validator("trained", mode="before")
    @classmethod
    def _from_mapping(cls, value: Any) -> Any:
        return [{"name": name, "path": path} for name, path in value.items()] if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _names_are_directories(self) -> ManyProbesConfig:
        for model in self.trained:
            if not _NAME.fullmatch(model.name) or model.name == BASELINE:
                raise ValueError(
                    f"the trained model {model.name!r} names a directory beside {BASELINE!r}: give it another name of"
                    f" letters, digits, -, _ and ., as in NAME={model.path}"
                )
        paths: dict[str, str] = {}
        for model in self.trained:
            if model.name in paths:
                raise ValueError(
                    f"{paths[model.name]} and {model.path} are both named {model.name!r}: give each its own name, as in"
                    f" NAME={model.path}"
                )
            paths[model.name] = model.path
        return self

    def pair(self, name: str) -> ProbeConfig:
        """The settings of the probe of one trained model, with a table of its own."""
        (path,) = (model.path for model in self.trained if model.name == name)
        changes = {"trained": path, "table_dir": self.table_of(name)}
        return ProbeConfig.model_validate(self.model_dump(exclude_unset=True) | changes)

    def table_of(self, name: str) -> str | None:
        """The `table_dir` of one of the models, or of BASELINE."""
        return f"{self.table_dir.rstrip('/')}/{name}/positions" if self.table_dir else None


def probe_class(trained: Any) -> type[ProbeConfig] | type[ManyProbesConfig]:
    """The settings that a value of `trained` belongs to: one path without a name, or several or named ones."""
    if isinstance(trained, list | tuple) and len(trained) == 1:
        (trained,) = trained
    if not isinstance(trained, str):
        return ProbeConfig if isinstance(trained, os.PathLike) else ManyProbesConfig
    name, equals, _ = trained.partition("=")
    return ManyProbesConfig if equals and "/" not in name else ProbeConfig


def trained_words(config: ProbeConfig | ManyProbesConfig) -> tuple[str, ...]:
    """`trained` as on the command line."""
    if isinstance(config, ProbeConfig):
        return (config.trained,)
    return tuple(f"{model.name}={model.path}" for model in config.trained)


class ExecutionConfig(Settings):
    """How a probe runs. The table is the same in every case."""

    report_to: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Experiment trackers that get the numbers of the run when it ends: tensorboard, wandb or trackio."""
    engine: Literal["local", "ray"] = "local"
    """Where the probe runs: in this process (under torchrun, on one GPU per rank) or on a Ray cluster."""
    num_workers: Annotated[int, Field(ge=1)] = 1
    """The number of Ray actors; each holds the baseline and one trained model and, where there are GPUs, has one."""
    num_threads: Annotated[int, Field(ge=0)] = 0
    """The number of threads to compute with on a CPU; 0 takes torch's own, whatever else the machine does: the last
    bits of the results depend on the number."""
    on_sampling_mismatch: Literal["error", "allow"] = "error"
    """What to do if `train_sampling` is given and the run that trained the model records another one. A control is
    probed with that of the self-distillation arm, which `allow` permits; the page then says so."""
    model_loading: Literal["auto", "both", "sequential"] = "auto"
    """Whether both models are in memory, or one after the other with hidden states on disk in between; auto loads both
    if they fit. Several trained models always follow one another."""
    max_spill_gb: Annotated[float, Field(gt=0)] = 32.0
    """The largest size of the hidden states on disk, with `model_loading: sequential`; when it is reached, the second
    model is loaded."""
    baseline_states: str = ""
    """A directory that keeps the baseline's hidden states for other probes of the same baseline at the same traces, and
    for trained models that are added later, which then run alone. It takes positions x hidden size x bytes of the
    dtype, and nothing is kept where that is more than max_spill_gb."""

    @model_validator(mode="after")
    def _states_are_of_one_process(self) -> ExecutionConfig:
        if self.baseline_states and (self.engine == "ray" or self.model_loading == "both"):
            raise ValueError(
                "baseline_states loads one model after the other: leave out engine: ray and model_loading: both"
            )
        return self
