"""``ssdfast train``: fine-tune a model on traces, resume bit for bit, and show within minutes whether it learns.

`train/metrics.jsonl` has a line per step, `train/checkpoints/` the last two checkpoints, `train/model` the result with
its card, and `train/adapters` the LoRA adapters where they are kept. With `keep_checkpoints` all checkpoints stay, as
models.
"""

from __future__ import annotations

import logging
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .. import models, run_dir
from ..config import EngineSamplingParams, TrainExecution, TrainingRunConfig
from ..distributed import is_first
from ..hub import local_path
from ..manifest import write_manifest
from ..processor import device_name
from ..progress import progress
from ..schemas import StepMetrics, TrainingRecord, read_metrics
from ..selected_shard import with_sources
from ..threads import set_threads
from ..traces import files
from .diagnostics import warmup_warning
from .examples import Example
from .filters import format_filters, read_training_examples
from .kept_checkpoints import KeptCheckpoints, remove_state
from .label_source import LabelSource, from_disabled_adapters, from_frozen_copy
from .model_card import model_card
from .packed_attention import is_packing_exact, isolate_traces
from .prepare_model import add_lora, attn_implementation, prepare, uses_autocast, weights_dtype
from .step_dataset import StepDataset
from .step_log import COMPLETE
from .trackers import check_trackers
from .trainer import SsdTrainer, training_arguments

RESULTS = ("train",)
MODEL, ADAPTERS, METRICS = "model", "adapters", "metrics.jsonl"

_log = logging.getLogger("ssdfast.training.runner")


def train(
    config: TrainingRunConfig, out: Path, execution: TrainExecution | None = None, overwrite: bool = False
) -> Path:
    """Fill `out` with config.yaml, manifest.json and train/; returns the trained model, `out/train/model`.

    A run that was stopped continues from its last complete checkpoint; on a CPU its losses are then the same to the
    last bit. With trial steps it leaves nothing in `out`. Raises ValueError for settings, traces or a model that cannot
    be used.
    """
    execution = execution or TrainExecution()
    set_threads(execution.num_threads)
    check_trackers(execution.report_to)
    if execution.trial_steps:
        with tempfile.TemporaryDirectory() as directory:
            trained = fit(config, Path(directory) / "train", execution)
            if is_first():
                print(format_metrics(trained.parent / METRICS))
            return trained
    with run_dir.lock(out, is_first()):
        if is_first():
            run_dir.check_claim(out, config, RESULTS, overwrite)

        def begin() -> None:
            run_dir.claim(out, config, RESULTS, overwrite)
            write_manifest(
                out, device_name(), config.seed, [local_path(config.model), *with_sources(files(Path(config.traces)))]
            )

        return fit(config, out / "train", execution, begin, overwrite)


def fit(
    config: TrainingRunConfig,
    directory: Path,
    execution: TrainExecution,
    begin: Callable[[], None] = lambda: None,
    overwrite: bool = False,
) -> Path:
    """Train in `directory`, which must be this run's own; returns the model there. Does nothing if the model exists.

    begin: called by the first rank after all checks, before anything is written. overwrite: it removes the model and
    the checkpoints that are there.
    """
    trained = directory / MODEL
    if trained.is_dir() and not overwrite:
        if is_first():
            begin()
        return trained
    on_gpu = torch.cuda.is_available()
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if config.offload_optimizer and execution.fsdp and ranks > 1:
        raise ValueError(
            "offload_optimizer with --fsdp: sharded moments stay on their devices, so use only one of the two"
        )
    if config.keep_checkpoints and execution.fsdp and ranks > 1:
        raise ValueError("keep_checkpoints with --fsdp: checkpoints are sharded, not models; use only one of the two")
    attention = attn_implementation(config, on_gpu, models.model_info(config.model).config)
    model = models.load(config.model, weights_dtype(config), attention)
    use_cache = model.model.config.use_cache  # the trainer sets it to False
    examples, report = read_training_examples(config, model)
    network = prepare(model.model, config, on_gpu)
    packs = is_packing_exact(network)
    if is_first():
        _log_preparation(report, network, packs)
        if uses_autocast(config, on_gpu) and not on_gpu:
            _log.info(
                "this CPU has a matrix unit for bfloat16: products run in it, weights and their updates in float32"
            )
    if config.lora_rank:
        torch.manual_seed(config.seed)
        network = add_lora(network, config.lora_rank)
    label_source = _label_source(config, model, network, examples)
    dataset = StepDataset(examples, config, config.seed, ranks, packs)
    checkpoints = directory / "checkpoints"
    keeps = config.keep_checkpoints
    args = training_arguments(config, directory, config.seed, config.save_steps, execution, keeps)
    if is_first():
        begin()
        run_dir.sweep(directory)
        TrainingRecord.model_validate(report | _sampling_record(examples)).write(directory / "filters.json")
    checkpoint, done = (None, 0) if overwrite else _last_complete(checkpoints)
    directory.mkdir(parents=True, exist_ok=True)
    metrics = directory / METRICS
    if is_first():
        _drop_steps_after(metrics, done)
    trainer = SsdTrainer(network, dataset, label_source, metrics, config, args)
    if keeps:
        trainer.tokenizer_of_checkpoints = model.tokenizer
        trainer.add_callback(KeptCheckpoints())
    step_log, num_steps = trainer.step_log, len(dataset.steps)
    step_log.last_step = min(num_steps, execution.trial_steps or num_steps)
    if is_first() and (warning := warmup_warning(step_log.last_step, config.warmup_steps, config.learning_rate)):
        _log.warning(warning)
    with progress("training", step_log.last_step, "steps", done, shown=is_first()) as advance:
        advance.note = lambda: f"loss {step_log.values['loss']:.4f}" if step_log.values else ""
        step_log.advance = advance
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if label_source.max_missing_mass > 0 and is_first():
        percent = 100 * label_source.max_missing_mass
        _log.warning("soft labels miss at most %.2g %% of the sampling distribution at a position", percent)
    if execution.trial_steps:
        return trained
    model.model.config.use_cache = use_cache
    _save(trainer, model, trained, config, len(examples))
    if is_first() and keeps:
        remove_state(checkpoints)
    elif is_first():
        shutil.rmtree(checkpoints, ignore_errors=True)
    return trained


def measure_speed(config: TrainingRunConfig, steps: int = 3) -> float:
    """Tokens per second, prompts included, of the steps of a trial after the first one. Nothing is kept."""
    with tempfile.TemporaryDirectory() as directory:
        trained = fit(config, Path(directory) / "train", TrainExecution(trial_steps=steps))
        steps_done = read_metrics(trained.parent / METRICS)
    speeds = [step.tokens_per_second for step in steps_done if step.tokens_per_second is not None]
    return statistics.median(speeds[1:] or speeds)


def _sampling_record(examples: list[Example]) -> dict[str, Any]:
    """The distinct sampling parameters of the traces, from which a probe takes `train_sampling`."""
    distinct = list(dict.fromkeys(example.sampling for example in examples))
    return {"train_sampling": [] if None in distinct else [sampling.model_dump() for sampling in distinct if sampling]}


def _log_preparation(report: dict[str, Any], network: Any, packs: bool) -> None:
    for line in format_filters(report):
        _log.info(line)
    if not packs:
        kind = type(network).__name__
        _log.warning("traces are padded, not packed: packed traces would attend to one another in a %s", kind)


def _label_source(
    config: TrainingRunConfig, model: models.LanguageModel, network: Any, examples: list[Example]
) -> LabelSource:
    """Raises ValueError if the traces lack what the soft loss needs."""
    if config.loss == "sampled":
        return LabelSource(None, model.vocabulary)
    sampling = config.train_sampling if config.sampling_from == "config" else _common_sampling(examples, config.traces)
    if config.soft_labels == "recompute":
        if config.lora_rank:
            return LabelSource(sampling, model.vocabulary, from_disabled_adapters(network, model.head))
        attention = attn_implementation(config, torch.cuda.is_available(), model.model.config)
        frozen = models.load(config.model, "float32", attention)
        isolate_traces(frozen.model)
        return LabelSource(sampling, model.vocabulary, from_frozen_copy(frozen))
    without = [example for example in examples if example.top_ids_LK is None]
    if without:
        raise ValueError(
            f"{without[0].trace} has no top log-probabilities (nor have {len(without) - 1:,} others): sample with"
            f" --top-logprobs {max(20, sampling.top_k)}, or compute them with soft_labels=recompute"
        )
    return LabelSource(sampling, model.vocabulary)


def _save(
    trainer: SsdTrainer, model: models.LanguageModel, directory: Path, config: TrainingRunConfig, num_traces: int
) -> None:
    """Writes the full trained model, with adapters merged into it. Every rank must call it if weights are sharded."""
    network: Any = trainer.model
    weights = trainer.gather_weights()
    if not is_first():
        return
    plain = model.model
    if hasattr(network, "merge_and_unload"):
        if weights is not None:
            network.load_state_dict(weights)
            weights = None
        if config.keep_adapters:
            run_dir.remove(directory.parent / ADAPTERS)  # of a run that was killed before it wrote the model
            with run_dir.atomic_directory(directory.parent / ADAPTERS) as temporary:
                network.save_pretrained(temporary)
        plain = network.merge_and_unload()
    del plain.forward  # the architecture's own again
    if config.model_dtype != "auto":
        dtype = getattr(torch, config.model_dtype)
        plain.to(dtype)
        weights = weights and {name: weight.to(dtype) for name, weight in weights.items()}
    models.save(model, directory, weights, model_card(config, num_traces, trainer.state.global_step))


def _common_sampling(examples: list[Example], source: str) -> EngineSamplingParams:
    distinct = {example.sampling for example in examples}
    if len(distinct) > 1 or None in distinct:
        raise ValueError(
            f"{source} has no sampling parameters, or different ones for its traces: set them with"
            " --sampling-from config --train-sampling.temperature 1.1 ..."
        )
    (sampling,) = distinct
    assert sampling
    return sampling


def _last_complete(checkpoints: Path) -> tuple[Path | None, int]:
    """The newest checkpoint that was written completely, and its step. Incomplete ones are removed."""
    newest: tuple[Path | None, int] = (None, 0)
    numbered = [path for path in checkpoints.glob("checkpoint-*") if path.name.rpartition("-")[2].isdecimal()]
    for path in sorted(numbered, key=lambda path: int(path.name.rpartition("-")[2])):
        if (path / COMPLETE).exists():
            newest = path, int(path.name.rpartition("-")[2])
        elif is_first():
            shutil.rmtree(path)
    return newest


def _drop_steps_after(metrics: Path, steps: int) -> None:
    """Keep only the lines of steps up to a checkpoint: the later ones are run again."""
    if metrics.exists():
        complete = [line for line in metrics.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        before = [line for line in complete if StepMetrics.model_validate_json(line).step <= steps]
        run_dir.write_text(metrics, "".join(f"{line}\n" for line in before))


def format_metrics(metrics: Path) -> str:
    """A row per metric, a column per step."""
    lines = [step.to_json() for step in read_metrics(metrics)]
    names = list(dict.fromkeys(name for line in lines for name in line))
    width = max(map(len, names))
    return "\n".join(
        f"{name.ljust(width)}  " + "  ".join("-" if line.get(name) is None else f"{line[name]:10.4g}" for line in lines)
        for name in names
    )
