"""The settings of every stage: strict, frozen, complete, and importable without torch.

A stage's settings come from its defaults, then a preset, then a YAML file, then flags; what they resolve to is
saved as ``config.yaml`` beside the results.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class DecodingConfig(Settings):
    """How tokens are drawn: divide by the temperature, keep the top k, then the nucleus of mass p."""

    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """above 0"""
    top_k: Annotated[int, Field(ge=0)] = 20
    """tokens that survive; 0 switches it off"""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """mass of the nucleus; 1 switches it off"""


class Preset(Settings):
    """The two decoding settings of a published recipe."""

    decoding: DecodingConfig
    train: DecodingConfig


PRESETS = {
    # Temperatures compose: T_train * T_eval near 1.2 is where the paper's sweep peaks. Top-p 0.8 is its setting for
    # models that do not think.
    "paper": Preset(decoding=DecodingConfig(), train=DecodingConfig(temperature=1.2, top_p=0.8)),
    "math": Preset(decoding=DecodingConfig(), train=DecodingConfig(temperature=1.1)),
    "demo": Preset(decoding=DecodingConfig(), train=DecodingConfig(temperature=1.1)),
}


class TraceSource(Settings):
    """Traces and who generated them."""

    label: Annotated[str, Field(min_length=1)]
    path: str

    @staticmethod
    def parse(value: Any) -> Any:
        """``LABEL=PATH`` in short; a mapping passes through."""
        if not isinstance(value, str):
            return value
        label, equals, path = value.partition("=")
        if not (label and equals and path):
            raise ValueError(f"a source of traces is written LABEL=PATH, got {value!r}")
        return {"label": label, "path": path}


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
    traces: Annotated[tuple[Annotated[TraceSource, BeforeValidator(TraceSource.parse)], ...], Field(min_length=1)]
    """Parquet files, or directories of them, each with the label of who generated it"""
    decoding: DecodingConfig = PRESETS["math"].decoding
    train: DecodingConfig = PRESETS["math"].train
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
    token_classes: dict[str, TokenClassConfig] = {}
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


class TrainConfig(Settings):
    """Plain fine-tuning on raw samples; the defaults are the published ones."""

    lr: Annotated[float, Field(gt=0)] = 5e-6
    """peak learning rate"""
    min_lr: Annotated[float, Field(ge=0)] = 1e-6
    """learning rate at the last step of the cosine"""
    weight_decay: float = 0.1
    batch_size: Annotated[int, Field(ge=1)] = 32
    """traces a step"""
    epochs: Annotated[int, Field(ge=1)] = 1
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0


class DemoConfig(Settings):
    """Sample, fine-tune on the raw samples, probe: self-distillation of a 135M model on a laptop."""

    train_problems: Annotated[int, Field(ge=1)] = 80
    held_out_problems: Annotated[int, Field(ge=1)] = 32
    max_new_tokens: Annotated[int, Field(ge=1)] = 48
    sampling: DecodingConfig = PRESETS["demo"].train
    # The published learning rate would not visibly move a model in the two dozen steps that fit into a minute.
    training: TrainConfig = TrainConfig(lr=3e-5, min_lr=6e-6, batch_size=4)
    seed: int = 0


Config = TypeVar("Config", bound=Settings)


def load(cls: type[Config], values: dict[str, Any], source: str) -> Config:
    """`values` as settings. Raises ValueError in one sentence that names `source`, the key and the remedy."""
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            allowed = ", ".join(_keys_at(cls, first["loc"][:-1]))
            raise ValueError(f"{source}: unknown key {key!r} (allowed here: {allowed})") from None
        if first["type"] == "missing":
            raise ValueError(f"{source}: the key {key!r} is missing") from None
        message = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{source}: {key}: {message} (got {first['input']!r})") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ValueError for anything else, naming the file."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"there is no config file {path}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a mapping of settings, it holds {type(values).__name__}")
    return values


def dump(config: Settings) -> str:
    """The settings as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _keys_at(cls: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The field names of the model found by walking `loc` from `cls`."""
    for step in loc:
        if isinstance(step, str) and step in cls.model_fields:
            cls = _settings_within(cls.model_fields[step].annotation) or cls
    return list(cls.model_fields)


def _settings_within(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _settings_within(inner))), None)
