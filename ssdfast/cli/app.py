"""The command line: ``ssdfast sample``, ``eval``, ``train``, ``plan``, ``study``, ``probe`` and ``demo``.

Exit codes: 0 done, 1 a fault, 2 the caller's mistake. torch is imported when a stage runs, not before.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tyro

from ..config import (
    DemoConfig,
    EvalConfig,
    EvalExecution,
    ExecutionConfig,
    PlanConfig,
    ProbeConfig,
    SampleConfig,
    SampleExecution,
    StudyExecution,
    TrainExecution,
    TrainingRunConfig,
)
from ..progress import log_to_terminal
from ..run_dir import RunError
from .commands import (
    DemoCommand,
    EvalCommand,
    PlanCommand,
    ProbeCommand,
    SampleCommand,
    StudyCommand,
    TrainCommand,
    eval_defaults,
    parse,
    part_of,
    probe_defaults,
    sample_defaults,
    train_defaults,
)

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
    if args[0] == "--version":
        print(f"ssdfast {version('ssdfast')}")
        return 0
    if args[0] not in commands:
        print(f"ssdfast: unknown command {args[0]!r}: the commands are {', '.join(commands)}", file=sys.stderr)
        return 2
    try:
        with log_to_terminal():
            return commands[args[0]](args[1:])
    except ValueError as error:
        print(f"ssdfast: {error}", file=sys.stderr)
        return 2
    except (RunError, OSError) as error:
        print(f"ssdfast: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ssdfast: stopped; the same command goes on from here", file=sys.stderr)
        return 130


def _sample(args: list[str]) -> int:
    command = parse(SampleCommand, sample_defaults(args), "sample", args)
    config, execution = part_of(command, SampleConfig), part_of(command, SampleExecution)
    if command.estimate:
        from ..sampling.estimate import estimate as estimate_sampling

        print(estimate_sampling(config, execution, command.out))
        return 0
    from ..sampling.run_stats import told
    from ..sampling.runner import sample

    found = sample(config, command.out, execution, command.overwrite)
    print(told(found))
    print(f"traces: {command.out / 'traces'}")
    if found["first_failure"]:
        print(
            f"ssdfast: some failed, the first {found['first_failure']}; the same command tries again", file=sys.stderr
        )
    return 1 if found["first_failure"] else 0


def _eval(args: list[str]) -> int:
    command = parse(EvalCommand, eval_defaults(args), "eval", args)
    config, execution = part_of(command, EvalConfig), part_of(command, EvalExecution)
    if command.estimate:
        from ..workflows.evaluate import estimate as estimate_evaluation

        print(estimate_evaluation(config, execution, command.out))
        return 0
    from ..evaluation.format_results import told
    from ..workflows.evaluate import evaluate

    print(told(evaluate(config, command.out, execution, command.overwrite)))
    print(f"\nfigures and verdicts: {command.out / 'eval'}")
    return 0


def _train(args: list[str]) -> int:
    command = parse(TrainCommand, train_defaults(args), "train", args)
    config, execution = part_of(command, TrainingRunConfig), part_of(command, TrainExecution)
    from ..training.runner import train

    trained = train(config, command.out, execution, command.overwrite)
    if not execution.trial_steps:
        print(f"model: {trained}\nmetrics of every step: {trained.parent / 'metrics.jsonl'}")
    return 0


def _study(args: list[str]) -> int:
    command = parse(StudyCommand, tyro.MISSING, "study", args)
    from ..workflows.study.runner import plan, read_study, study

    config, execution = read_study(command.file), part_of(command, StudyExecution)
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
    print(f"report: {command.out / 'report.html'}")
    return 0


def _plan(args: list[str]) -> int:
    command = parse(PlanCommand, PlanCommand.model_construct(model=tyro.MISSING), "plan", args)
    config = part_of(command, PlanConfig)
    from ..training.planning.format_plan import report

    for line in report(config, command.out):
        print(line, flush=True)
    return 0


def _probe(args: list[str]) -> int:
    command = parse(ProbeCommand, probe_defaults(args), "probe", args)
    config, execution = part_of(command, ProbeConfig), part_of(command, ExecutionConfig)
    if command.estimate:
        from ..probing.estimate import estimate

        print(estimate(config, execution))
        return 0
    from ..distributed import is_first
    from ..probing.runner import probe
    from ..report import write_report

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
    command = parse(DemoCommand, DemoCommand(), "demo", args)
    from ..workflows.demo import demo

    _headline(command.out, demo(part_of(command, DemoConfig), command.out, command.overwrite))
    return 0


def _headline(out: Path, report: Path) -> None:
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    everything = summary["all"]
    print(f"{summary['positions']:,} positions of {summary['traces']:,} traces")
    print(f"the model moved by KL {_interval(everything['kl_ab'])} nats a position")
    print(f"share of the movement along what self-distillation predicts: {_interval(everything['ssd_share'])}")
    print(f"report: {report}")


def _interval(value: dict[str, Any]) -> str:
    return "undefined" if value["mean"] is None else "{mean:.4f} [{low:.4f}, {high:.4f}]".format(**value)
