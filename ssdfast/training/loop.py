"""Fine-tuning on raw samples: fp32 weights and optimizer, hard labels, cosine schedule.

With weights in bf16 a step of 1e-5 falls below the weights' quantum and is lost.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

from .. import models, rundir
from ..config import TrainConfig
from ..progress import progress
from ..traces import Trace, check_ids, read
from .batches import Batch, batches, steps

CHECKPOINT = "checkpoint"


def train(model_path: str, traces: Path, config: TrainConfig, seed: int, out: Path) -> Path:
    """Fine-tune a model on every trace; returns the checkpoint, `out/checkpoint`, in float32 safetensors.

    Does nothing where the checkpoint is there. `out/metrics.jsonl` holds loss (nats a token), gradient norm and
    learning rate of each step. Raises ValueError for no traces, or ids outside the vocabulary.
    """
    checkpoint = out / CHECKPOINT
    if checkpoint.is_dir():
        return checkpoint
    rundir.sweep(out)
    data = [trace for trace in read(traces) if len(trace.completion_ids)]
    if not data:
        raise ValueError(f"there is nothing to train on: {traces} holds no completion tokens")
    model = models.load(model_path, "float32")
    _check(data, model)
    torch.manual_seed(seed)
    metrics = _optimize(model, data, config, seed)
    rundir.write_text(out / "metrics.jsonl", "".join(json.dumps(step) + "\n" for step in metrics))
    models.save(model, checkpoint)
    return checkpoint


def learning_rate(step: int, total: int, config: TrainConfig) -> float:
    """Cosine from `lr` at step 0 to `min_lr` at the last step."""
    done = step / max(1, total - 1)
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * done)) / 2


def _optimize(model: models.LanguageModel, data: list[Trace], config: TrainConfig, seed: int) -> list[dict[str, float]]:
    network = model.model.train()
    decayed = [p for p in network.parameters() if p.dim() > 1]
    plain = [p for p in network.parameters() if p.dim() <= 1]  # norms and biases
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.95))
    total = steps(len(data), config.batch_size, config.epochs)
    metrics = []
    with progress("training", total, "steps") as advance:
        for step, batch in enumerate(batches(data, config.batch_size, config.epochs, seed)):
            lr = learning_rate(step, total, config)
            for group in optimizer.param_groups:
                group["lr"] = lr
            loss = _loss(model, batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(network.parameters(), config.max_grad_norm)
            optimizer.step()
            metrics.append({"step": step, "loss": loss.item(), "grad_norm": norm.item(), "lr": lr})
            advance(1)
    return metrics


def _loss(model: models.LanguageModel, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy over the batch's completion tokens, in nats."""
    input_ids_BL = batch.input_ids_BL.to(model.device)
    logits_BKV = model.model(input_ids=input_ids_BL, use_cache=False, logits_to_keep=batch.keep).logits
    logits_SV = logits_BKV.flatten(0, 1)[batch.row_S.to(model.device)]
    return torch.nn.functional.cross_entropy(logits_SV.float(), batch.label_S.to(model.device))


def _check(data: list[Trace], model: models.LanguageModel) -> None:
    for trace in data:
        check_ids(trace, model.vocabulary)
        if len(trace) > model.context:
            raise ValueError(
                f"{trace} has {len(trace)} tokens, the context of {model.path} is {model.context}: leave it out"
            )
