"""The sampling parameters of the training samples, from the records of the run that trained the model.

The fraction of a shift that self-distillation predicts depends on them, so they are read rather than repeated by hand:
from the training run that the trained model lies in, or else from the probed traces where they are training samples
of the baseline. The first record is direct, the second is not: the model may have been trained on other traces.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from .. import run_dir, traces
from ..config import EngineSamplingParams, ProbeConfig, SamplingParams
from ..hub import local_path
from ..schemas import TrainingRecord

_NOT_MODELLED = tuple(name for name in EngineSamplingParams.model_fields if name not in SamplingParams.model_fields)


@dataclass(frozen=True)
class Record:
    """Sampling parameters and where they are recorded. direct: by the training run itself."""

    where: str
    sampling: tuple[EngineSamplingParams, ...]
    direct: bool


class Resolved(NamedTuple):
    """The settings with their `train_sampling`, a sentence about where it comes from, and a warning, empty for none."""

    config: ProbeConfig
    origin: str
    warning: str = ""


def resolve_train_sampling(config: ProbeConfig, on_mismatch: Literal["error", "allow"]) -> Resolved:
    """The settings with the recorded `train_sampling` where none was given.

    Raises ValueError where the direct record contradicts a given one and `on_mismatch` is error, and where none was
    given and the record is ambiguous.
    """
    record = _training_run(Path(config.trained)) or _training_samples(config)
    given = "train_sampling" in config.model_fields_set
    current, start = _format(config.train_sampling), "The sampling parameters of training are"
    if record is None and given:
        return Resolved(config, f"{start} {current}, as given.")
    if record is None:
        why = "the default, for no record of the training samples was found"
        return Resolved(config, f"{start} {current}, {why}.", f"train_sampling is {current}, {why}: set it")
    kernel = {sampling.kernel_params() for sampling in record.sampling}
    recorded = " and ".join(sorted(map(_format, kernel)))
    if given and kernel != {config.train_sampling}:
        what = f"train_sampling is {current}, but {record.where} records {recorded}"
        if record.direct and on_mismatch == "error":
            raise ValueError(f"{what}: leave it out, or keep it with --on-sampling-mismatch allow")
        warning = what if on_mismatch == "error" else ""
        return Resolved(config, f"Check the sampling parameters of training: {what}.", warning)
    if len(kernel) > 1:
        raise ValueError(f"{record.where} records several sampling parameters ({recorded}): set train_sampling")
    origin, warning = f"{start} {recorded}, as {record.where} records.", ""
    if ignored := sorted({name for name in _NOT_MODELLED for params in record.sampling if getattr(params, name)}):
        warning = f"the prediction of self-distillation leaves out {' and '.join(ignored)} of the training samples"
        origin += f" The prediction leaves out {' and '.join(ignored)}."
    return Resolved(config.model_copy(update={"train_sampling": kernel.pop()}), origin, warning)


def _training_run(trained: Path) -> Record | None:
    """The record of the run whose result is `trained`, RUN/train/model, or RUN/train/checkpoints/checkpoint-STEP."""
    stage = trained.resolve().parent  # a study links to it
    run = trained.parent.parent
    if stage.name == "checkpoints":
        stage, run = stage.parent, run.parent
    settings = _settings(stage.parent)
    if stage.name != "train" or "traces" not in settings or "loss" not in settings:
        return None
    file = stage / "filters.json"
    recorded = TrainingRecord.read(file).train_sampling if file.exists() else None
    if settings["loss"] == "soft" and settings.get("sampling_from") == "config":
        sampling: tuple[EngineSamplingParams, ...] = (EngineSamplingParams(**settings["train_sampling"]),)
    elif recorded is not None:
        sampling = tuple(recorded)
    else:
        path = traces.traces_path(Path(settings["traces"]))
        sampling = _columns(path) if path.exists() else ()
    return Record(f"the training run {run}", sampling, direct=True) if sampling else None


def _training_samples(config: ProbeConfig) -> Record | None:
    """The record of the probed traces, where a run sampled them from the baseline for training."""
    paths = [traces.traces_path(Path(source.path)).absolute() for source in config.traces]
    baseline = local_path(config.baseline).resolve()
    for path in paths:
        settings = _settings(path.parent)
        if settings.get("purpose") != "training" or local_path(str(settings.get("model"))).resolve() != baseline:
            return None
    sampling = tuple(dict.fromkeys(params for path in paths for params in _columns(path)))
    where = f"the run of the traces {', '.join(source.path for source in config.traces)}"
    return Record(where, sampling, direct=False) if sampling else None


def _settings(directory: Path) -> dict[str, Any]:
    """The settings of a run, empty where there is none."""
    file = directory / run_dir.CONFIG
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}


def _columns(path: Path) -> tuple[EngineSamplingParams, ...]:
    """The distinct sampling parameters in the columns of traces; empty where a trace has none."""
    names = tuple(EngineSamplingParams.model_fields)
    distinct: set[tuple[Any, ...]] = set()
    for file in traces.files(path):
        for table in traces.tables(file, traces.REQUIRED[:1], names):
            columns = [table[name].to_pylist() if name in table.column_names else [None] * len(table) for name in names]
            distinct.update(zip(*columns, strict=True))
    if any(values[names.index("temperature")] is None for values in distinct):
        return ()
    rows: Iterable[dict[str, Any]] = (dict(zip(names, values, strict=True)) for values in sorted(distinct, key=str))
    return tuple(EngineSamplingParams(**{name: v for name, v in row.items() if v is not None}) for row in rows)


def _format(sampling: SamplingParams) -> str:
    return f"T={sampling.temperature:g} k={sampling.top_k} p={sampling.top_p:g}"
