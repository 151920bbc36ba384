"""The options of each command, from defaults, then a preset, then a YAML file, then flags."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar

import tyro
from pydantic import BaseModel, Field
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from .. import config as settings
from ..config import (
    BaselinePath,
    EvalConfig,
    EvalExecution,
    ExecutionConfig,
    ManyProbesConfig,
    NamedPath,
    PlanConfig,
    ProbeConfig,
    ProbeSettings,
    SampleConfig,
    SampleExecution,
    Settings,
    StudyExecution,
    TrainExecution,
    TrainingRunConfig,
    defaults,
)
from .mistakes import check_flags, one_sentence

PresetName = Literal["paper-4b-instruct", "paper-30b-instruct", "paper-4b-thinking", "math", "demo"]


class _ModelFirst(Settings):
    """Puts the model first in the help; the stage's own field replaces this one."""

    model: str


class _RunOptions(Settings):
    """The options of every stage that fills a directory."""

    out: Path
    """The directory of the results; a run that is already there is continued."""
    config: Path | None = None
    """A YAML file of the settings below; flags override it."""
    overwrite: bool = False
    """Remove the results that are already there and start again."""


class _StageOptions(_RunOptions):
    """The options of the stages that take sampling parameters from a published recipe."""

    preset: PresetName = "math"
    """The recipe that sets the sampling parameters; the file and the flags override it. The paper's differ by model:
    Qwen3-4B-Instruct-2507, Qwen3-30B-A3B-Instruct-2507 or Qwen3-4B-Thinking-2507."""
    estimate: bool = False
    """Print what the run will take, from a short trial, and stop."""


class SampleCommand(SampleExecution, SampleConfig, _StageOptions, _ModelFirst):
    """Sample a frozen model's answers to problems, as traces of token ids. No trace is lost and none is repeated."""


class EvalCommand(EvalExecution, EvalConfig, _StageOptions):
    """Grade the answers of checkpoints, for one setting of the sampling parameters or a sweep, and compare them."""


class TrainCommand(TrainExecution, TrainingRunConfig, _RunOptions, _ModelFirst):
    """Fine-tune a model on traces; the defaults are the published ones."""

    preset: PresetName = "math"
    """The published recipe that sets schedule and sampling parameters; the file and the flags override it."""
    estimate: bool = False
    """Print the number of steps and tokens and the planned peak memory, and stop."""


class _TrainedWords(BaselinePath):
    trained: Annotated[tuple[str, ...], Field(min_length=1), tyro.conf.arg(metavar="[NAME=]PATH [...]")]
    """The models after training, as PATH or NAME=PATH; they must have the same tokenizer. One path without a name fills
    the directory with its probe. Several share one pass of the baseline and its columns, and each has a directory under
    its name, by default the last part of its path. Models can be added later."""


class ProbeCommand(ExecutionConfig, ProbeSettings, _TrainedWords, _StageOptions):
    """Measure the shift of trained models from their baseline at the completion positions of given traces."""


class PlanCommand(PlanConfig):
    """Print the memory of a training step, by component, and which settings fit; no weights and no GPU are needed."""

    out: Path | None = None
    """The directory for a figure and the numbers."""


class _StudyFirst(Settings):
    """Puts the study's file and directory first in the help."""

    file: tyro.conf.Positional[str]
    """A YAML file of the study, or a preset: paper-4b-instruct, paper-30b-instruct, paper-4b-thinking, math or demo."""
    out: Path
    """The directory of the study; several machines can work in it."""


class StudyCommand(StudyExecution, _StudyFirst):
    """Sample, train, evaluate and probe every arm of a study, and attribute its shift. Finished stages are kept."""


class AttributeCommand(Settings):
    """Say what shifted each arm beyond a control: self-distillation, a temperature, an EOS bias or a residual."""

    probes: tyro.conf.Positional[tuple[str, ...]]
    """The probes of each arm, as ARM=DIR or ARM=DIR,DIR with one directory per seed of its training."""
    out: Path
    """The directory of the results."""
    control: str = "control"
    """The arm that was trained on samples at temperature 1 without truncation."""
    overwrite: bool = False
    """Remove the results that are already there and start again."""


class ViewCommand(Settings):
    """Look at traces, a probe, an evaluation or a study in a browser. The page is served on this machine alone."""

    directory: tyro.conf.Positional[Path]
    """The directory of a run, or of traces."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """The port on 127.0.0.1; 0 takes one that is free."""
    browser: bool = True
    """Open the page in the browser."""


class CleanCommand(Settings):
    """List the stages of a study that its settings no longer need, with their sizes; remove them with --remove."""

    study: tyro.conf.Positional[Path]
    """The directory of the study."""
    remove: bool = False
    """Remove the listed stages."""


Model = TypeVar("Model", bound=BaseModel)


def attribute_arms(texts: Sequence[str]) -> dict[str, list[Path]]:
    """Arms from ``ARM=DIR,DIR``. Raises ValueError for another form, or an arm that is given twice."""
    arms: dict[str, list[Path]] = {}
    for text in texts:
        name, equals, paths = text.partition("=")
        if not (name and equals and all(paths.split(","))):
            raise ValueError(f"{text!r} must be ARM=DIR or ARM=DIR,DIR, such as ssd=probes/ssd-0,probes/ssd-1")
        if name in arms:
            raise ValueError(f"the arm {name!r} is given twice: give its probes in one list, {name}=DIR,DIR")
        arms[name] = [Path(path) for path in paths.split(",")]
    return arms


def settings_from(command: BaseModel, cls: type[Model]) -> Model:
    """The fields of `command` that make up a `cls`."""
    return cls.model_validate({name: getattr(command, name) for name in cls.model_fields})


def sample_defaults(args: list[str]) -> SampleCommand:
    def preset_values(name: str, values: dict[str, Any]) -> dict[str, Any]:
        purpose = _peek(args, "--purpose", choices=("training", "evaluation"))
        return defaults.sample_defaults(name, {**values, "purpose": purpose} if purpose else values)

    return SampleCommand.model_construct(
        **_defaults(args, SampleConfig, SampleExecution, {"model": "-"}, preset_values)
    )


def eval_defaults(args: list[str]) -> EvalCommand:
    return EvalCommand.model_construct(**_defaults(args, EvalConfig, EvalExecution, {}, defaults.eval_defaults))


def train_defaults(args: list[str]) -> TrainCommand:
    required = {"model": "-", "traces": "-"}
    values = _defaults(args, TrainingRunConfig, TrainExecution, required, defaults.train_defaults)
    return TrainCommand.model_construct(**values)


def probe_defaults(args: list[str]) -> ProbeCommand:
    file = _peek(args, "--config")
    trained = settings.read_yaml(Path(file)).get("trained", "-") if file else "-"
    cls = settings.probe_class(trained)
    required = {"baseline": "-", "trained": "-", "traces": ["-=-"]}
    values = _defaults(args, cls, ExecutionConfig, required, defaults.probe_defaults)
    if values["trained"] is not tyro.MISSING:
        given = {"baseline": "-", "trained": values["trained"], "traces": ["-=-"]}
        values["trained"] = settings.trained_words(cls.model_validate(given))
    return ProbeCommand.model_construct(**values)


def probe_config(command: ProbeCommand, args: list[str]) -> ProbeConfig | ManyProbesConfig:
    """The settings of a probe; `train_sampling` is not set unless a flag, the preset or the file gives it."""
    cls = settings.probe_class(command.trained)
    values = {name: getattr(command, name) for name in cls.model_fields}
    values["trained"] = command.trained[0] if cls is ProbeConfig else list(command.trained)
    flags = tuple(arg for arg in args if arg.replace("_", "-").startswith(("--train-sampling.", "--preset")))
    file = settings.read_yaml(command.config) if command.config else {}
    if not flags and not {"train_sampling", "preset"} & file.keys():
        del values["train_sampling"]
    return cls.model_validate(values)


def _defaults(
    args: list[str],
    config: type[Settings],
    execution: type[Settings],
    required: dict[str, Any],
    preset_values: Callable[[str, dict[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """The defaults of the flags: the preset, overridden by the file; a required setting in neither stays
    missing.

    required: the settings without a default, each with a placeholder that passes validation.
    """
    preset, file = (
        _peek(args, "--preset", choices=tuple(settings.PRESETS)) or defaults.DEFAULT_PRESET,
        _peek(args, "--config"),
    )
    values = settings.read_yaml(Path(file)) if file else {}
    values = defaults.merge(preset_values(preset, values), values)
    execution_values = {name: values.pop(name) for name in execution.model_fields if name in values}
    fields: dict[str, Any] = {"out": tyro.MISSING, "config": file and Path(file), "preset": preset}
    for cls, given, placeholders in ((config, values, required), (execution, execution_values, {})):
        loaded = settings.load(cls, {**placeholders, **given}, file or "")
        fields |= {name: getattr(loaded, name) for name in cls.model_fields}
    return fields | {name: tyro.MISSING for name in required if name not in values}


class _Peek(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message.removeprefix("argument "))


def _peek(args: list[str], flag: str, choices: tuple[str, ...] | None = None) -> str | None:
    """The value of a flag that other defaults depend on."""
    parser = _Peek(add_help=False, allow_abbrev=False)
    parser.add_argument(flag, choices=choices, dest="value")
    value: str | None = parser.parse_known_args(args)[0].value
    return value


def parse(cls: type[Model], default: Model, name: str, args: list[str]) -> Model:
    """The command line as a `cls`; prints the help and exits where it is called for.

    Raises ValueError in one sentence for a mistake.
    """
    if set(args) & {"-h", "--help"}:
        with _registry():
            return tyro.cli(cls, default=default, args=args, prog=f"ssdfast {name}")
    check_flags(cls, name, args)
    with _registry(), one_sentence():
        return tyro.cli(cls, default=default, args=args, prog=f"ssdfast {name}")


def _registry() -> ConstructorRegistry:
    """Makes tyro read a named path as one argument, NAME=PATH or PATH."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def _(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[NamedPath] | None:
        if info.type is not NamedPath:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="[NAME=]PATH",
            instance_from_str=lambda words: NamedPath.model_validate(words[0]),
            is_instance=lambda value: isinstance(value, NamedPath),
            str_from_instance=lambda source: [f"{source.name}={source.path}"],
        )

    return registry
