"""``ssdfast train``: fine-tune a model on traces, resume to the last bit, and see within minutes whether it learns.

`train/metrics.jsonl` has a line a step, `train/checkpoints/` the last two states to go on from, `train/model` the
result.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from .. import models, run_dir
from ..config import EngineSamplingParams, TrainExecution, TrainingRunConfig
from ..distributed import is_first
from ..progress import progress, say
from ..traces import files, within
from .examples import Example
from .filters import format_filters, read_training_examples
from .label_source import Labels, of_adapted, of_frozen
from .packed_attention import packs_exactly, separate
from .prepare_model import adapted, attention_for, prepare, weights_dtype
from .step_dataset import Steps
from .trainer import WHOLE, SsdTrainer, arguments

RESULTS = ("train",)
MODEL = "model"


def train(
    config: TrainingRunConfig, out: Path, execution: TrainExecution | None = None, overwrite: bool = False
) -> Path:
    """Fill `out` with config.yaml, manifest.json and train/; returns the trained model, `out/train/model`.

    A run that was stopped goes on from its last whole checkpoint; on a CPU it then makes the same losses to the last
    bit. Raises ValueError for settings, traces or a model that will not do.
    """
    execution = execution or TrainExecution()
    if execution.trial_steps:
        with tempfile.TemporaryDirectory() as directory:
            return fit(config, Path(directory) / "train", execution)
    with run_dir.lock(out, is_first()):
        if is_first():
            run_dir.claim(out, config, RESULTS, overwrite)
            device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
            run_dir.write_manifest(out, device, config.seed, [Path(config.model), *files(within(Path(config.traces)))])
        return fit(config, out / "train", execution)


def fit(config: TrainingRunConfig, directory: Path, execution: TrainExecution) -> Path:
    """Train in `directory`, which is this run's own; returns the model there. Does nothing where that is."""
    trained = directory / MODEL
    if trained.is_dir():
        return trained
    if is_first():
        run_dir.sweep(directory)
    on_gpu = torch.cuda.is_available()
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if config.offload_optimizer and execution.fsdp and ranks > 1:
        raise ValueError("offload_optimizer with --fsdp: sharded moments stay on their devices, leave one of them out")
    model = models.load(config.model, weights_dtype(config), attention_for(config, on_gpu))
    examples, report = read_training_examples(config, model)
    network = prepare(model.model, config, on_gpu)
    packs = packs_exactly(network)
    if is_first():
        _tell(report, network, packs)
        run_dir.write_json(directory / "filters.json", report)
    if config.lora_rank:
        torch.manual_seed(config.seed)
        network = adapted(network, config.lora_rank)
    labels = _labels(config, model, network, examples)
    steps = Steps(examples, config, config.seed, ranks, packs)
    options = arguments(config, directory / "checkpoints", config.seed, config.save_steps, execution)
    checkpoint, begun = _last_whole(directory / "checkpoints")
    directory.mkdir(parents=True, exist_ok=True)
    metrics = directory / "metrics.jsonl"
    if is_first():
        _cut(metrics, begun)
    trainer = SsdTrainer(network, steps, labels, metrics, config, options)
    trainer.step.last = min(len(steps.steps), execution.trial_steps or len(steps.steps))
    with progress("training", trainer.step.last, "steps", begun, shown=is_first()) as advance:
        advance.note = lambda: f"loss {trainer.step.shown['loss']:.4f}" if trainer.step.shown else ""
        trainer.step.advance = advance
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if labels.missed > 0 and is_first():
        say(f"the labels miss at most {100 * labels.missed:.2g} % of the sampling distribution at a position")
    if execution.trial_steps:
        if is_first():
            print(_told(metrics))
        return trained
    _save(trainer, model, trained)
    if is_first():
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    return trained


def _tell(report: dict[str, Any], network: Any, packs: bool) -> None:
    for line in format_filters(report):
        say(line)
    if not packs:
        say(f"traces are padded, not packed: {type(network).__name__} would let one read another")


def _labels(config: TrainingRunConfig, model: models.LanguageModel, network: Any, examples: list[Example]) -> Labels:
    """Raises ValueError where the traces do not hold what the expected loss needs."""
    if config.loss == "sampled":
        return Labels(None, model.vocabulary)
    decoding = config.train_sampling if config.sampling_from == "config" else _decoding_of(examples, config.traces)
    if config.soft_labels == "recompute":
        if config.lora_rank:
            return Labels(decoding, model.vocabulary, of_adapted(network, model.head))
        frozen = models.load(config.model, "float32", attention_for(config, torch.cuda.is_available()))
        separate(frozen.model)
        return Labels(decoding, model.vocabulary, of_frozen(frozen))
    without = [example for example in examples if example.top_ids_LK is None]
    if without:
        raise ValueError(
            f"{without[0].trace}: it has no likeliest tokens (and {len(without) - 1:,} others): sample with"
            f" --top-logprobs {max(20, decoding.top_k)}, or compute them with soft_labels=recompute"
        )
    return Labels(decoding, model.vocabulary)


def _save(trainer: SsdTrainer, model: models.LanguageModel, directory: Path) -> None:
    """The trained model, whole, adapters merged into it. Every rank takes part where the weights are shared out."""
    network: Any = trainer.model
    weights = trainer.whole_weights()
    if not is_first():
        return
    plain = model.model
    if hasattr(network, "merge_and_unload"):
        if weights is not None:
            network.load_state_dict(weights)
            weights = None
        plain = network.merge_and_unload()
    del plain.forward  # the architecture's own again
    models.save(model, directory, weights)


def _decoding_of(examples: list[Example], source: str) -> EngineSamplingParams:
    found = {example.decoding for example in examples}
    if len(found) > 1 or None in found:
        raise ValueError(
            f"{source} does not say how its traces were sampled, or says several things: say it with"
            " --sampling-from config --train-sampling.temperature 1.1 ..."
        )
    (decoding,) = found
    assert decoding
    return decoding


def _last_whole(checkpoints: Path) -> tuple[Path | None, int]:
    """The newest checkpoint that was written to its end, and its step; others are removed."""
    found: tuple[Path | None, int] = (None, 0)
    for path in sorted(checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2])):
        if (path / WHOLE).exists():
            found = path, int(path.name.rpartition("-")[2])
        elif is_first():
            shutil.rmtree(path)
    return found


def _cut(metrics: Path, steps: int) -> None:
    """Leave the lines of the steps that a checkpoint holds: those after it are made again."""
    if metrics.exists():
        kept = [line for line in metrics.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        kept = [line for line in kept if json.loads(line)["step"] <= steps]
        run_dir.write_text(metrics, "".join(f"{line}\n" for line in kept))


def _told(metrics: Path) -> str:
    lines: list[dict[str, Any]] = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    names = list(dict.fromkeys(name for line in lines for name in line))
    width = max(map(len, names))
    return "\n".join(
        f"{name.ljust(width)}  " + "  ".join("-" if line.get(name) is None else f"{line[name]:10.4g}" for line in lines)
        for name in names
    )
