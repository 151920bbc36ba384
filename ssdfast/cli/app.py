"""The commands: ``ssdfast sample``, ``eval``, ``train``, ``plan``, ``probe``, ``study`` and ``clean``.

Exit codes: 0 done, 1 a failure, 2 the caller's mistake. torch is imported when a stage runs, not before.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import tyro

from ..config import (
    EvalConfig,
    EvalExecution,
    ExecutionConfig,
    PlanConfig,
    SampleConfig,
    SampleExecution,
    StudyExecution,
    TrainExecution,
    TrainingRunConfig,
)
from ..config.base import describe
from ..extras import require
from ..number_format import format_interval
from ..progress import log_to_terminal
from ..run_dir import RunError, read_json
from .commands import (
    CleanCommand,
    EvalCommand,
    PlanCommand,
    ProbeCommand,
    SampleCommand,
    StudyCommand,
    TrainCommand,
    eval_defaults,
    parse,
    probe_config,
    probe_defaults,
    sample_defaults,
    settings_from,
    train_defaults,
)
from .mistakes import quiet_unicode

HELP = """\
usage: ssdfast COMMAND [OPTIONS]

Was it self-distillation, or just training?

  sample  sample a model's answers to problems, as traces of token ids
  eval    score checkpoints or existing completions, and test which accuracy differences are significant
  train   fine-tune a model on traces, with a report on every step of whether it learns
  plan    print the memory that training takes, for any model and length, without weights and without a GPU
  probe   measure the shift of a trained model from its baseline at every position of given traces
  study   run all of these for several arms and decide: self-distillation, or just training?
  clean   list, or remove, the stages of a study that its settings no longer need

`ssdfast study demo --out runs/demo` is a small study of a 135M model: a few minutes on a laptop, no downloads.
`ssdfast COMMAND --help` lists the options, `ssdfast --version` prints the version.
A run that was stopped continues where it was when the same command is started again.
"""


def main() -> None:
    quiet_unicode(sys.stdout, sys.stderr)
    sys.exit(run(sys.argv[1:]))


def run(args: list[str]) -> int:
    """Run one command line; returns the exit code."""
    commands = {
        "sample": _sample,
        "eval": _eval,
        "train": _train,
        "plan": _plan,
        "probe": _probe,
        "study": _study,
        "clean": _clean,
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
        print(f"ssdfast: {' '.join(describe(error).split())}", file=sys.stderr)
        return 2
    except (RunError, OSError) as error:
        print(f"ssdfast: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ssdfast: stopped; the same command continues from here", file=sys.stderr)
        return 130


def _sample(args: list[str]) -> int:
    command = parse(SampleCommand, sample_defaults(args), "sample", args)
    config, execution = settings_from(command, SampleConfig), settings_from(command, SampleExecution)
    if command.estimate:
        from ..sampling.estimate import estimate as estimate_sampling

        print(estimate_sampling(config, execution, command.out))
        return 0
    from ..sampling.run_stats import format_summary
    from ..sampling.runner import sample

    summary = sample(config, command.out, execution, command.overwrite)
    print(format_summary(summary))
    print(f"traces: {command.out / 'traces'}")
    if failure := summary["first_failure"]:
        print(f"ssdfast: some traces failed, the first {failure}; the same command retries them", file=sys.stderr)
        return 1
    return 0


def _eval(args: list[str]) -> int:
    command = parse(EvalCommand, eval_defaults(args), "eval", args)
    config, execution = settings_from(command, EvalConfig), settings_from(command, EvalExecution)
    if command.estimate:
        from ..workflows.evaluate import estimate as estimate_evaluation

        print(estimate_evaluation(config, execution, command.out))
        return 0
    from ..evaluation.format_results import format_results
    from ..workflows.evaluate import evaluate

    print(format_results(evaluate(config, command.out, execution, command.overwrite)))
    print(f"\nplots and graded samples: {command.out / 'eval'}")
    return 0


def _train(args: list[str]) -> int:
    command = parse(TrainCommand, train_defaults(args), "train", args)
    config, execution = settings_from(command, TrainingRunConfig), settings_from(command, TrainExecution)
    require("train")
    if command.estimate:
        from ..training.estimate import estimate

        print(estimate(config))
        return 0
    from ..training.runner import train

    trained = train(config, command.out, execution, command.overwrite)
    if not execution.trial_steps:
        print(f"model: {trained}\nmetrics of every step: {trained.parent / 'metrics.jsonl'}")
    return 0


def _study(args: list[str]) -> int:
    command = parse(StudyCommand, tyro.MISSING, "study", args)
    require("train", "eval")
    from ..workflows.study.runner import estimate, read_study, study

    config, execution = read_study(command.file), settings_from(command, StudyExecution)
    if execution.estimate:
        print(estimate(config, command.out, execution))
        return 0
    attribution = study(config, command.out, execution)
    if attribution is None:
        print(f"the stages of {', '.join(execution.only_arms)} are done; stages of other arms remain")
        return 0
    for arm in attribution["arms"].values():
        if verdict := arm.get("verdict"):
            print(f"{verdict['text']}\n")
    for model in sorted((command.out / "models").iterdir()):
        print(f"model: {model}")
    print(f"report: {command.out / 'report.html'}")
    return 0


def _clean(args: list[str]) -> int:
    command = parse(CleanCommand, CleanCommand.model_construct(study=tyro.MISSING), "clean", args)
    from ..workflows.study.clean import format_superseded, remove, superseded

    stages = superseded(command.study)
    print(format_superseded(stages))
    if command.remove:
        remove(stages)
    elif stages:
        print(f"nothing was removed; to remove them: ssdfast clean {command.study} --remove")
    return 0


def _plan(args: list[str]) -> int:
    command = parse(PlanCommand, PlanCommand.model_construct(model=tyro.MISSING), "plan", args)
    config = settings_from(command, PlanConfig)
    from ..training.planning.format_plan import report

    for line in report(config, command.out):
        print(line, flush=True)
    return 0


def _probe(args: list[str]) -> int:
    command = parse(ProbeCommand, probe_defaults(args), "probe", args)
    config, execution = probe_config(command, args), settings_from(command, ExecutionConfig)
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
        first = f"{failed[0]['trace_source']}, {failed[0]['trace_id']}: {failed[0]['reason']}"
        print(
            f"ssdfast: {len(failed)} traces could not be scored, the first {first}."
            f" {command.out / 'summary.json'} lists them; the same command tries them again",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _headline(out: Path, report: Path) -> None:
    summary = read_json(out / "summary.json")
    everything = summary["all"]
    print(f"{summary['positions']:,} positions of {summary['traces']:,} traces")
    print(f"shift, KL(trained ‖ baseline): {format_interval(everything['kl_trained_base'])} nats per position")
    fraction = format_interval(everything["ssd_variance_fraction"], percent=True)
    print(f"fraction of the shift along what self-distillation predicts: {fraction}")
    if origin := summary.get("train_sampling_origin"):
        print(origin)
    print(f"report: {report}")
