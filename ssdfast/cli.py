"""The command line: ``ssdfast sample``, ``eval``, ``train``, ``plan``, ``study``, ``probe`` and ``demo``.

Exit codes: 0 done, 1 a fault, 2 the caller's mistake. torch is imported when a stage runs, not before.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import tyro
from pydantic import BaseModel
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from . import config as settings
from .config import (
    DemoConfig,
    EvalConfig,
    EvalExecution,
    ExecutionConfig,
    FinetuneConfig,
    Labelled,
    PlanConfig,
    ProbeConfig,
    SampleConfig,
    SampleExecution,
    Settings,
    StudyExecution,
    TrainExecution,
)
from .rundir import Fault

HELP = """\
usage: ssdfast COMMAND [OPTIONS]

Was it self-distillation, or just training?

  sample  draw a model's answers to problems, as traces
  eval    how many answers are right, of checkpoints or of completions from elsewhere, and which differences are real
  train   fine-tune a model on traces, and see within minutes whether it learns anything
  plan    say what memory training takes, of any model and length, without its weights and without a GPU
  study   all of these for several arms: what moved the trained models, and was it self-distillation
  probe   measure how a trained model differs from its baseline, at every position of given traces
  demo    sample, fine-tune and probe a 135M model on this machine: a few minutes, no downloads

`ssdfast COMMAND --help` lists the options. A run that was stopped goes on where it was when it is started again.
"""


class _RunCommand(Settings):
    """What every stage is asked besides its settings."""

    out: Path
    """directory for the results; a run already there is continued"""
    config: Path | None = None
    """YAML file of the settings below; flags override it"""
    overwrite: bool = False
    """remove the results already there and begin again"""


class _StageCommand(_RunCommand):
    """Of the stages that read a recipe's decoding."""

    preset: Literal["paper", "math", "demo"] = "math"
    """decoding of a published recipe; the file and the flags override it"""
    estimate: bool = False
    """say what the run will take, from a short trial of it, and stop"""


class _ProbeCommand(_StageCommand, ExecutionConfig, ProbeConfig):
    """Measure how a trained model differs from its baseline, at the completion positions of given traces."""


class _SampleCommand(_StageCommand, SampleExecution, SampleConfig):
    """Draw a frozen model's answers to problems: traces as token ids, none lost and none twice."""


class _EvalCommand(_StageCommand, EvalExecution, EvalConfig):
    """Judge the answers of checkpoints, at one decoding or a sweep, and compare what was asked the same."""


class _TrainCommand(_RunCommand, TrainExecution, FinetuneConfig):
    """Fine-tune a model on traces; the defaults are the published ones."""

    preset: Literal["paper", "math", "demo"] = "math"
    """schedule and sampling distribution of a published recipe; the file and the flags override it"""


class _PlanCommand(PlanConfig):
    """Say what memory a training step would take, by part, and which settings fit; no weights and no GPU are needed."""

    out: Path | None = None
    """directory for a figure and the numbers"""


class _StudyCommand(StudyExecution):
    """Sample, train, evaluate and probe every arm of a study, and say what moved them. What is done is not repeated."""

    file: tyro.conf.Positional[str]
    """YAML file of the study, or paper, math or demo for a preset as it is"""
    out: Path
    """directory of the study; other machines may work in it too"""


class _DemoCommand(DemoConfig):
    """Sample, fine-tune on the raw samples, probe: self-distillation of a 135M model on a laptop."""

    out: Path = Path("runs/demo")
    """directory for the results; a run already there is continued"""
    overwrite: bool = False
    """remove the results already there and begin again"""


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def run(args: list[str]) -> int:
    """Run one command line; returns the exit code."""
    commands = {
        "sample": _sample,
        "eval": _eval,
        "train": _train,
        "plan": _plan,
        "study": _study,
        "probe": _probe,
        "demo": _demo,
    }
    if not args or args[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0 if args else 2
    if args[0] not in commands:
        print(f"ssdfast: unknown command {args[0]!r}: the commands are {', '.join(commands)}", file=sys.stderr)
        return 2
    try:
        return commands[args[0]](args[1:])
    except ValueError as error:
        print(f"ssdfast: {error}", file=sys.stderr)
        return 2
    except (Fault, OSError) as error:
        print(f"ssdfast: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ssdfast: stopped; the same command goes on from here", file=sys.stderr)
        return 130


def _sample(args: list[str]) -> int:
    command = _parse(_SampleCommand, _sample_defaults(args), "sample", args)
    config, execution = _part_of(command, SampleConfig), _part_of(command, SampleExecution)
    if command.estimate:
        from .sampling.estimate import estimate as estimate_sampling

        print(estimate_sampling(config, execution, command.out))
        return 0
    from .sampling.runner import sample
    from .sampling.tally import told

    found = sample(config, command.out, execution, command.overwrite)
    print(told(found))
    print(f"traces: {command.out / 'traces'}")
    if found["first_failure"]:
        print(
            f"ssdfast: some failed, the first {found['first_failure']}; the same command tries again", file=sys.stderr
        )
    return 1 if found["first_failure"] else 0


def _eval(args: list[str]) -> int:
    command = _parse(_EvalCommand, _eval_defaults(args), "eval", args)
    config, execution = _part_of(command, EvalConfig), _part_of(command, EvalExecution)
    if command.estimate:
        from .evaluate import estimate as estimate_evaluation

        print(estimate_evaluation(config, execution, command.out))
        return 0
    from .evaluate import evaluate
    from .evaluation.told import told

    print(told(evaluate(config, command.out, execution, command.overwrite)))
    print(f"\nfigures and verdicts: {command.out / 'eval'}")
    return 0


def _train(args: list[str]) -> int:
    command = _parse(_TrainCommand, _train_defaults(args), "train", args)
    config, execution = _part_of(command, FinetuneConfig), _part_of(command, TrainExecution)
    from .training.runner import train

    trained = train(config, command.out, execution, command.overwrite)
    if not execution.dry_run:
        print(f"model: {trained}\nmetrics of every step: {trained.parent / 'metrics.jsonl'}")
    return 0


def _study(args: list[str]) -> int:
    with _registry():
        command = tyro.cli(_StudyCommand, args=args, prog="ssdfast study")
    from .study.runner import plan, read_study, study

    config, execution = read_study(command.file), _part_of(command, StudyExecution)
    if execution.dry_run:
        print(plan(config, command.out, execution))
        return 0
    found = study(config, command.out, execution)
    if found is None:
        print(f"the stages of {', '.join(execution.arms)} are done; those of other arms are still to run")
        return 0
    for arm in found["arms"].values():
        if verdict := arm.get("verdict"):
            print(f"{verdict['text']}\n")
    print(f"figures: {command.out / 'attribution.json'} and {command.out / 'results.json'}")
    return 0


def _plan(args: list[str]) -> int:
    command = _parse(_PlanCommand, _PlanCommand.model_construct(model=tyro.MISSING), "plan", args)
    config = _part_of(command, PlanConfig)
    from .training.planning.report import report

    for line in report(config, command.out):
        print(line, flush=True)
    return 0


def _probe(args: list[str]) -> int:
    command = _parse(_ProbeCommand, _probe_defaults(args), "probe", args)
    config, execution = _part_of(command, ProbeConfig), _part_of(command, ExecutionConfig)
    if command.estimate:
        from .probing.estimate import estimate

        print(estimate(config, execution))
        return 0
    from .probing.runner import probe
    from .ranks import is_first
    from .report import write_report

    failed = probe(config, command.out, execution, command.overwrite)
    if is_first():
        _headline(command.out, write_report(command.out))
    if failed:
        first = f"{failed[0]['label']}, {failed[0]['trace_id']}: {failed[0]['reason']}"
        print(
            f"ssdfast: {len(failed)} traces could not be scored, the first {first}."
            f" {command.out / 'summary.json'} lists them; the same command tries them again",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _demo(args: list[str]) -> int:
    command = _parse(_DemoCommand, _DemoCommand(), "demo", args)
    from .demo import demo

    _headline(command.out, demo(_part_of(command, DemoConfig), command.out, command.overwrite))
    return 0


Part = TypeVar("Part", bound=BaseModel)


def _part_of(command: BaseModel, cls: type[Part]) -> Part:
    return cls.model_validate({name: getattr(command, name) for name in cls.model_fields})


def _sample_defaults(args: list[str]) -> _SampleCommand:
    def of_preset(name: str, values: dict[str, Any]) -> dict[str, Any]:
        purpose = _early(args, "--purpose", choices=("training", "evaluation")) or values.get("purpose", "training")
        preset = settings.PRESETS[name]
        decoding = preset.decoding if purpose == "evaluation" else preset.train
        return {"decoding": decoding.model_dump()}

    return _SampleCommand.model_construct(**_defaults(args, SampleConfig, SampleExecution, {"model": "-"}, of_preset))


def _eval_defaults(args: list[str]) -> _EvalCommand:
    def of_preset(name: str, values: dict[str, Any]) -> dict[str, Any]:
        return {"decoding": settings.PRESETS[name].decoding.model_dump()}

    return _EvalCommand.model_construct(**_defaults(args, EvalConfig, EvalExecution, {}, of_preset))


def _train_defaults(args: list[str]) -> _TrainCommand:
    required = {"model": "-", "traces": "-"}

    def of_preset(name: str, values: dict[str, Any]) -> dict[str, Any]:
        return {"decoding": settings.PRESETS[name].train.model_dump(), **settings.SCHEDULES[name]}

    return _TrainCommand.model_construct(**_defaults(args, FinetuneConfig, TrainExecution, required, of_preset))


def _probe_defaults(args: list[str]) -> _ProbeCommand:
    required = {"baseline": "-", "trained": "-", "traces": ["-=-"]}
    given = _defaults(args, ProbeConfig, ExecutionConfig, required, lambda name, _: settings.PRESETS[name].model_dump())
    return _ProbeCommand.model_construct(**given)


def _defaults(
    args: list[str],
    config: type[Settings],
    execution: type[Settings],
    required: dict[str, Any],
    of_preset: Callable[[str, dict[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """What the flags start from: the preset, then the file; what neither gives is left for the flags to give.

    required: settings without a default, each with a value that stands in for it until then.
    """
    preset, file = _early(args, "--preset", choices=tuple(settings.PRESETS)) or "math", _early(args, "--config")
    values = settings.read_yaml(Path(file)) if file else {}
    values = _merge(of_preset(preset, values), values)
    of_execution = {name: values.pop(name) for name in execution.model_fields if name in values}
    fields: dict[str, Any] = {"out": tyro.MISSING, "config": file and Path(file), "preset": preset}
    for cls, mine, stand_in in ((config, values, required), (execution, of_execution, {})):
        known = settings.load(cls, {**stand_in, **mine}, file or "")
        fields |= {name: getattr(known, name) for name in cls.model_fields}
    return fields | {name: tyro.MISSING for name in required if name not in values}


def _early(args: list[str], flag: str, choices: tuple[str, ...] | None = None) -> str | None:
    """The value of a flag that others' defaults depend on."""
    early = argparse.ArgumentParser(f"ssdfast {flag}", add_help=False, allow_abbrev=False)
    early.add_argument(flag, choices=choices, dest="value")
    value: str | None = early.parse_known_args(args)[0].value
    return value


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


Command = TypeVar("Command", _SampleCommand, _EvalCommand, _TrainCommand, _PlanCommand, _ProbeCommand, _DemoCommand)


def _parse(cls: type[Command], default: Command, name: str, args: list[str]) -> Command:
    with _registry():
        return tyro.cli(cls, default=default, args=args, prog=f"ssdfast {name}")


def _registry() -> ConstructorRegistry:
    """Teaches tyro that a path with a label is one word, LABEL=PATH."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def _(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Labelled] | None:
        if info.type is not Labelled:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="LABEL=PATH",
            instance_from_str=lambda words: Labelled.model_validate(words[0]),
            is_instance=lambda value: isinstance(value, Labelled),
            str_from_instance=lambda source: [f"{source.label}={source.path}"],
        )

    return registry


def _headline(out: Path, report: Path) -> None:
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    everything = summary["all"]
    print(f"{summary['positions']:,} positions of {summary['traces']:,} traces")
    print(f"the model moved by KL {_interval(everything['kl_ab'])} nats a position")
    print(f"share of the movement along what self-distillation predicts: {_interval(everything['ssd_share'])}")
    print(f"report: {report}")


def _interval(value: dict[str, Any]) -> str:
    return "undefined" if value["mean"] is None else "{mean:.4f} [{low:.4f}, {high:.4f}]".format(**value)
