"""A function per stage. Each takes the stage's config, or keyword arguments named like the flags, fills a directory
and returns a small object that knows it. torch is imported when a stage runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import (
    EvalConfig,
    EvalExecution,
    ExecutionConfig,
    ManyProbesConfig,
    ProbeConfig,
    SampleConfig,
    SampleExecution,
    Settings,
    StudyConfig,
    StudyExecution,
    TrainExecution,
    TrainingRunConfig,
    probe_class,
)
from ..config import defaults as stage_defaults
from ..results.attribution import Attribution
from ..results.evaluation import Evaluation
from ..results.model import Model
from ..results.probe import Probe
from ..results.probes import Probes
from ..results.study import Study
from ..results.traces import Traces
from .settings import split_settings

PathLike = str | os.PathLike[str]

_log = logging.getLogger("ssdfast")


def sample(config: SampleConfig | None = None, *, out: PathLike, overwrite: bool = False, **settings: Any) -> Traces:
    """Sample completions of problems from a frozen model; a run that was stopped continues.

    settings: as the flags of ``ssdfast sample``, such as ``model``, ``problems={"sources": [...]}``,
    ``sampling={"temperature": 1.1}``, ``max_new_tokens``, ``preset``. out: the directory to fill. overwrite: remove the
    results that are there first.
    Raises ValueError in one sentence for unusable settings, problems or models; RunError where the engine fails.

    >>> traces = ssd.sample(model="model", problems={"sources": "problems.jsonl"}, max_new_tokens=4, out="new/traces")
    >>> traces.summary().traces
    8
    """
    from ..sampling.runner import sample as run

    given, execution = split_settings(
        "sample", config, settings, SampleConfig, SampleExecution, stage_defaults.sample_defaults
    )
    if failure := run(given, Path(out), execution, overwrite).first_failure:
        _log.warning("some traces failed, the first %s; the same call tries them again", failure)
    return Traces(out)


def train(config: TrainingRunConfig | None = None, *, out: PathLike, overwrite: bool = False, **settings: Any) -> Model:
    """Fine-tune a model on traces; a run that was stopped continues from its last checkpoint.

    settings: as the flags of ``ssdfast train``, such as ``model``, ``traces`` (a path or `Traces`), ``loss="soft"``,
    ``learning_rate``, ``report_to``, ``preset``. Losses are in nats per completion token.
    Raises ValueError in one sentence for settings, traces or a model that cannot be used.

    >>> model = ssd.train(model="model", traces="runs/traces", batch_size=4, out="new/trained")
    >>> model.path.is_dir()
    True
    """
    from ..training.runner import train as run

    given, execution = split_settings(
        "train", config, settings, TrainingRunConfig, TrainExecution, stage_defaults.train_defaults
    )
    if execution.trial_steps:
        raise ValueError("trial_steps leaves no model: use `ssdfast train --trial-steps`, or ssdfast.estimate")
    run(given, Path(out), execution, overwrite)
    return Model(out)


def evaluate(
    config: EvalConfig | None = None, *, out: PathLike, overwrite: bool = False, **settings: Any
) -> Evaluation:
    """Grade the answers of checkpoints or of existing completions, and compare them.

    settings: as the flags of ``ssdfast eval``, such as ``models={"base": "models/base", "ssd": trained}``,
    ``completions``, ``problems``, ``sweep={"temperature": [0.7, 1.0]}``, ``samples_per_problem``, ``preset``.
    Accuracies are fractions, differences percentage points.
    Raises ValueError in one sentence for unusable settings, problems, models or completions; RunError where traces
    failed.

    >>> evals = ssd.evaluate(completions="runs/traces", problems={"sources": "problems.jsonl"}, out="new/eval")
    >>> len(evals.samples())
    8
    """
    from ..workflows.evaluate import evaluate as run

    given, execution = split_settings(
        "evaluate", config, settings, EvalConfig, EvalExecution, stage_defaults.eval_defaults
    )
    run(given, Path(out), execution, overwrite)
    return Evaluation(out)


def probe(
    config: ProbeConfig | ManyProbesConfig | None = None, *, out: PathLike, overwrite: bool = False, **settings: Any
) -> Probe | Probes:
    """Measure the shift of trained models from their baseline at every completion position of traces.

    settings: as the flags of ``ssdfast probe``: ``baseline``, ``trained`` (a path or `Model`, or ``{name: path}`` for
    several, which share the baseline's pass and columns), ``traces`` (paths, `Traces`, or ``{name: path}``),
    ``eval_sampling``, ``train_sampling``, ``top_logprobs``, ``preset``. Without ``train_sampling`` it is read from the
    records of the training run. Divergences and entropies are in nats.
    Raises ValueError in one sentence for models or traces that do not fit together; RunError where the models fail.

    >>> probe = ssd.probe(baseline="model", trained=ssd.load("runs/trained"), traces="runs/traces", out="new/probe")
    >>> probe.summary().traces
    8
    >>> trained = {"ssd": ssd.load("runs/trained"), "moved": "moved"}
    >>> probes = ssd.probe(baseline="model", trained=trained, traces="runs/traces", out="new/probes")
    >>> probes.models
    ['moved', 'ssd']
    """
    from ..workflows.probe import probe as run

    given, execution = _probe_settings("probe", config, settings)
    if failed := run(given, Path(out), execution, overwrite):
        _log.warning("%s traces could not be scored, the first %s", f"{len(failed):,}", failed[0].trace_id)
    return Probe(out) if isinstance(given, ProbeConfig) else Probes(out)


def _probe_settings(
    function: str, config: Any, settings: Mapping[str, Any]
) -> tuple[ProbeConfig | ManyProbesConfig, ExecutionConfig]:
    """Of one trained model, or of several."""
    cls: Any = ProbeConfig if config is None else type(config)
    if "trained" in settings:
        cls = probe_class(settings["trained"])
    names_sampling = bool({"train_sampling", "preset"} & settings.keys())
    defaults = stage_defaults.probe_defaults if names_sampling else None
    return split_settings(function, config, settings, cls, ExecutionConfig, defaults)


def attribute(
    arms: Mapping[str, PathLike | Sequence[PathLike]],
    control: str = "control",
    *,
    out: PathLike,
    overwrite: bool = False,
) -> Attribution:
    """Say what shifted each arm beyond a control: self-distillation, a temperature, an EOS bias or a residual.

    arms: for each the directories of its probes (or `Probe` objects), one per seed; all over one baseline with the same
    settings and traces. control: the arm that was trained on samples at temperature 1 without truncation.
    Raises ValueError in one sentence for probes that do not fit together, such as those of two baselines.

    >>> attribution = ssd.attribute({"ssd": "runs/probe", "control": "runs/probe-control"}, out="new/attribution")
    >>> attribution.verdicts()["arm"].tolist()
    ['ssd']
    """
    from ..workflows.attribute import attribute as run

    several = {
        name: [Path(probes)] if isinstance(probes, str | os.PathLike) else [Path(path) for path in probes]
        for name, probes in arms.items()
    }
    run(several, control, Path(out), overwrite)
    return Attribution(out)


def study(config: StudyConfig | PathLike, *, out: PathLike, **settings: Any) -> Study:
    """Sample, train, evaluate and probe every arm of a study, and attribute its shift. Finished stages are kept.

    config: a `StudyConfig`, a YAML file, or a preset such as ``"demo"``. settings: as the flags of ``ssdfast study``:
    ``engine_args``.
    Raises ValueError in one sentence for settings that cannot work; RunError where a stage failed.

    >>> study = ssd.study("study.yaml", out="runs/study")
    >>> study.report.exists()
    True
    """
    from ..workflows.study.runner import read_study
    from ..workflows.study.runner import study as run

    given = config if isinstance(config, StudyConfig) else read_study(os.fspath(config))
    given, execution = split_settings("study", given, settings, StudyConfig, StudyExecution)
    if execution.only_arms or execution.estimate:
        raise ValueError("only_arms and estimate are for the command line: use `ssdfast study`, or ssdfast.estimate")
    run(given, Path(out), execution)
    return Study(out)


def estimate(stage: str, config: Settings | PathLike | None = None, *, out: PathLike = "runs", **settings: Any) -> str:
    """What a stage will take, as text: tokens, time, memory and cost, from a short trial. Nothing is written.

    stage: ``"sample"``, ``"train"``, ``"evaluate"``, ``"probe"`` or ``"study"``. The rest is as for that function.
    Raises ValueError in one sentence for an unknown stage or unusable settings.

    >>> print(ssd.estimate("train", model="model", traces="runs/traces"))
    traces  8 of 8
    steps   1 (epochs: 1, traces per step: 32)
    ...
    """
    path: Any = config
    if stage == "sample":
        from ..sampling.estimate import estimate as estimate_sample

        sampling = split_settings(stage, path, settings, SampleConfig, SampleExecution, stage_defaults.sample_defaults)
        return str(estimate_sample(*sampling, Path(out)))
    if stage == "train":
        from ..training.estimate import estimate as estimate_train

        training = split_settings(
            stage, path, settings, TrainingRunConfig, TrainExecution, stage_defaults.train_defaults
        )
        return estimate_train(training[0])
    if stage == "evaluate":
        from ..workflows.evaluate import estimate as estimate_evaluate

        return estimate_evaluate(
            *split_settings(stage, path, settings, EvalConfig, EvalExecution, stage_defaults.eval_defaults), Path(out)
        )
    if stage == "probe":
        from ..probing.estimate import estimate as estimate_probe

        return str(estimate_probe(*_probe_settings(stage, path, settings)))
    if stage == "study":
        from ..workflows.study.runner import estimate as estimate_study
        from ..workflows.study.runner import read_study

        given = path if isinstance(path, StudyConfig) else read_study(os.fspath(path))
        given, execution = split_settings(stage, given, settings, StudyConfig, StudyExecution)
        return estimate_study(given, Path(out), execution)
    raise ValueError(f"unknown stage {stage!r}: name sample, train, evaluate, probe or study")
