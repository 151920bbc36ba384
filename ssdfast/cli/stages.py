"""The commands: each reads its options, runs its stage and prints what came of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import tyro

from ..config import (
    EvalConfig,
    EvalExecution,
    ExecutionConfig,
    ManyProbesConfig,
    PlanConfig,
    ProbeConfig,
    SampleConfig,
    SampleExecution,
    StudyExecution,
    TrainExecution,
    TrainingRunConfig,
)
from ..extras import require
from ..number_format import format_interval
from ..probe_models import model_directory
from ..schemas import ProbeSummary
from .commands import (
    AttributeCommand,
    CleanCommand,
    EvalCommand,
    PlanCommand,
    ProbeCommand,
    SampleCommand,
    StudyCommand,
    TrainCommand,
    ViewCommand,
    attribute_arms,
    eval_defaults,
    parse,
    probe_config,
    probe_defaults,
    sample_defaults,
    settings_from,
    train_defaults,
)


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
    if failure := summary.first_failure:
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
    for arm in attribution.arms.values():
        if arm.verdict:
            print(f"{arm.verdict.text}\n")
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
    from ..workflows.probe import probe

    failed = probe(config, command.out, execution, command.overwrite)
    if is_first():
        _headline(config, command.out)
    if failed:
        first = f"{failed[0].trace_source}, {failed[0].trace_id}: {failed[0].reason}"
        print(
            f"ssdfast: {len(failed)} traces could not be scored, the first {first}."
            f" {'summary.json lists them' if isinstance(config, ProbeConfig) else 'each summary.json lists its own'};"
            " the same command tries them again",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _headline(config: ProbeConfig | ManyProbesConfig, out: Path) -> None:
    if isinstance(config, ManyProbesConfig):
        for model in config.trained:
            summary = ProbeSummary.read(model_directory(out, model.name) / "summary.json")
            shift = format_interval(summary.all.kl_trained_base)
            print(f"{model.name}: {summary.positions:,} positions, shift {shift} nats per position")
    else:
        summary = ProbeSummary.read(out / "summary.json")
        print(f"{summary.positions:,} positions of {summary.traces:,} traces")
        print(f"shift, KL(trained ‖ baseline): {format_interval(summary.all.kl_trained_base)} nats per position")
        fraction = format_interval(summary.all.ssd_variance_fraction, percent=True)
        print(f"fraction of the shift along what self-distillation predicts: {fraction}")
        if origin := summary.train_sampling_origin:
            print(origin)
    print(f"report: {out / 'report.html'}")


def _attribute(args: list[str]) -> int:
    command = parse(AttributeCommand, tyro.MISSING, "attribute", args)
    from ..workflows.attribute import attribute

    arms = attribute_arms(command.probes)
    for arm in attribute(arms, command.control, command.out, command.overwrite).arms.values():
        if arm.verdict:
            print(f"{arm.verdict.text}\n")
    print(f"all statistics: {command.out / 'attribution.json'}")
    return 0


def _view(args: list[str]) -> int:
    command = parse(ViewCommand, tyro.MISSING, "view", args)
    require("view")
    from ..view.server import serve

    serve(command.directory, command.port, command.browser)
    return 0


RUN: dict[str, Callable[[list[str]], int]] = {
    "sample": _sample,
    "eval": _eval,
    "train": _train,
    "plan": _plan,
    "probe": _probe,
    "study": _study,
    "clean": _clean,
    "attribute": _attribute,
    "view": _view,
}
