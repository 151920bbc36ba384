"""SmolLM2-135M: the noise of traces' gradients under both losses; the weights that a step changes.

Used by claims_training.py.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sums
import torch
from common import ROOT

from ssdfast import models
from ssdfast.config import (
    PRESETS,
    EngineSamplingParams,
    SampleConfig,
    SampleExecution,
    TrainConfig,
    TrainExecution,
    TrainingRunConfig,
)
from ssdfast.problems.problem import Problem
from ssdfast.problems.reasoning_gym import chain_sums
from ssdfast.sampling.requests import LazyEngine, plan_for
from ssdfast.sampling.runner import fill
from ssdfast.training.activation_checkpointing import accumulate_in_float32
from ssdfast.training.collate import collate_padded
from ssdfast.training.diagnostics import WeightWatch
from ssdfast.training.examples import Example, read_examples
from ssdfast.training.label_source import LabelSource
from ssdfast.training.loss import make_trainable
from ssdfast.training.optimizers import optimizer_cls_and_kwargs
from ssdfast.training.runner import fit
from ssdfast.workflows.study import demo

HOME = ROOT / "runs" / "bench-training"
TRACES, TOKENS = 24, 48
TRAIN_TRACES, HELD_OUT_TRACES = 60, 32
RECIPE: dict[str, Any] = {"learning_rate": 1e-5, "min_learning_rate": 1e-5, "batch_size": 2, "num_train_epochs": 2}
STEPS = TRAIN_TRACES // RECIPE["batch_size"] * RECIPE["num_train_epochs"]
DECODING = EngineSamplingParams(**PRESETS["demo"].train_sampling.model_dump())


@dataclass(frozen=True)
class Noise:
    """The gradients of single traces, each averaged over its tokens."""

    variances: dict[str, float]
    """trace of the covariance over traces, by loss"""
    means: dict[str, float]
    """square of the mean gradient, without the contribution of noise"""
    cosines: dict[int, float]
    """of the two losses' mean gradients, by the number of traces"""

    def cosine_over_bound(self, traces: int) -> float:
        """The cosine over its expected value with one true gradient and noise in the sampled loss alone."""
        signal = self.means["soft"]
        return self.cosines[traces] / (signal / (signal + self.variances["sampled"] / traces)) ** 0.5

    @property
    def ratio(self) -> float:
        return self.variances["sampled"] / self.variances["soft"]


def examples(directory: Path, problems: list[Problem], seed: int = 0) -> list[Example]:
    """Traces of sums, prompted with two worked examples, with the 20 likeliest tokens of each step."""
    baseline = demo.convert(HOME / "model")
    config = SampleConfig(
        model=str(baseline), prompt=sums.PROMPT, sampling=DECODING, max_new_tokens=TOKENS, top_logprobs=20, seed=seed
    )
    plan = plan_for(config, problems)
    with LazyEngine(config, SampleExecution(), plan) as engines:
        fill(plan, engines, directory, "traces")
    model = models.model_info(str(baseline))
    return list(read_examples(directory, model.vocabulary))


def held_out(seed: int) -> dict[str, float]:
    """Cross-entropy of the baseline's q on held-out traces in nats per token, and its floor, the entropy of q.

    It is that of the baseline and, after STEPS steps on the same traces, that of each loss.
    """
    home = HOME / f"seed-{seed}"
    problems = chain_sums(TRAIN_TRACES + HELD_OUT_TRACES, seed)
    examples(home / "train", problems[:TRAIN_TRACES], seed)
    unseen = examples(home / "unseen", problems[TRAIN_TRACES:], seed)
    losses = {"baseline": _cross_entropy(HOME / "model", unseen), "floor": _entropy(unseen)}
    for loss in ("sampled", "soft"):
        config = TrainingRunConfig(
            model=str(HOME / "model"), traces=str(home / "train"), seed=seed, loss=loss, save_steps=1000, **RECIPE
        )
        shutil.rmtree(home / loss, ignore_errors=True)
        losses[loss] = _cross_entropy(fit(config, home / loss, TrainExecution()), unseen)
        shutil.rmtree(home / loss)
    return losses


def _cross_entropy(path: Path, traces: list[Example]) -> float:
    model = models.load(str(path), "float32")
    network, source = make_trainable(model.model), LabelSource(DECODING, model.vocabulary)
    total, tokens = 0.0, 0
    with torch.inference_mode():
        for example in traces:
            batch = collate_padded([example])
            ids_SK, probs_SK = source.labels(batch)
            ones_S = torch.ones(len(ids_SK))
            total += float(network(batch, ids_SK, probs_SK, ones_S)["loss"])
            tokens += len(ids_SK)
    return total / tokens


def _entropy(traces: list[Example]) -> float:
    probs_SK = torch.cat([LabelSource(DECODING, 0).labels(collate_padded([example]))[1] for example in traces])
    return float(torch.special.entr(probs_SK.double()).sum() / len(probs_SK))


def gradient_noise(traces: list[Example]) -> Noise:
    model = models.load(str(HOME / "model"), "float32")
    sources = {"sampled": LabelSource(None, model.vocabulary), "soft": LabelSource(DECODING, model.vocabulary)}
    network = make_trainable(model.model)
    parameters = list(network.parameters())
    sums = {name: [torch.zeros_like(p) for p in parameters] for name in sources}
    squares = dict.fromkeys(sources, 0.0)
    cosines = {}
    for count, example in enumerate(traces, 1):
        batch = collate_padded([example])
        for name, source in sources.items():
            network.zero_grad()
            ids_SK, probs_SK = source.labels(batch)
            weight_S = torch.full((len(ids_SK),), 1 / len(ids_SK))
            network(batch, ids_SK, probs_SK, weight_S)["loss"].backward()
            for total, parameter in zip(sums[name], parameters, strict=True):
                total += parameter.grad
                squares[name] += float(torch.linalg.vector_norm(parameter.grad, dtype=torch.float64)) ** 2
        if count in (3, 6, 12, len(traces)):
            a, b = sums["sampled"], sums["soft"]
            cosines[count] = _dot(a, b) / (_dot(a, a) * _dot(b, b)) ** 0.5
    n = len(traces)
    mean = {name: _dot(total, total) / n**2 for name, total in sums.items()}
    variance = {name: (squares[name] - n * mean[name]) / (n - 1) for name in sources}
    return Noise(variance, {name: mean[name] - variance[name] / n for name in sources}, cosines)


def converging(traces: list[Example], draws: tuple[int, ...] = (1, 100, 10_000)) -> dict[int, float]:
    """The cosine of the gradients of soft labels and of the mean of ``draws`` labels sampled from q at every position.

    A sampled trace has one such label per position: the mean over more of them is that of more traces through the same
    positions.
    """
    model = models.load(str(HOME / "model"), "float32")
    network, source = make_trainable(model.model), LabelSource(DECODING, model.vocabulary)
    chance = torch.Generator().manual_seed(0)

    def gradient(count: int) -> list[torch.Tensor]:
        network.zero_grad()
        for example in traces:
            batch = collate_padded([example])
            ids_SK, probs_SK = source.labels(batch)
            if count:
                sampled = torch.multinomial(probs_SK, count, replacement=True, generator=chance)
                probs_SK = torch.zeros_like(probs_SK).scatter_add_(1, sampled, torch.full(sampled.shape, 1 / count))
            network(batch, ids_SK, probs_SK, torch.full((len(ids_SK),), 1 / len(ids_SK)))["loss"].backward()
        return [p.grad.clone() for p in network.parameters()]

    expected = gradient(0)
    cosines = {}
    for count in draws:
        mean = gradient(count)
        cosines[count] = _dot(mean, expected) / (_dot(mean, mean) * _dot(expected, expected)) ** 0.5
    return cosines


@dataclass(frozen=True)
class WeightChange:
    """The change of the weights by some steps of training."""

    frac_weights_changed: float
    """by the last step"""
    update_fraction: float
    """of the update that the same steps make in float32, along it: 1 where none is lost, 0 where all is"""


def weight_changes(traces: list[Example], lr: float = 1e-6, steps: int = 6) -> dict[str, WeightChange]:
    """The effect of AdamW, two traces per step, on weights in float32, bfloat16 and stochastically rounded bfloat16."""
    ways = {
        "float32": ("float32", TrainConfig(learning_rate=lr)),
        "bfloat16": ("bfloat16", TrainConfig(learning_rate=lr)),
        "stochastic rounding": ("bfloat16", TrainConfig(learning_rate=lr, optimizer="adamw_bf16")),
    }
    fractions, updates = {}, {}
    for name, (dtype, config) in ways.items():
        model = models.load(str(HOME / "model"), dtype)
        network = make_trainable(model.model)
        if config.optimizer == "adamw_bf16":
            accumulate_in_float32(network)
        before = [p.detach().clone() for p in network.parameters()]
        cls, settings = optimizer_cls_and_kwargs(config)
        optimizer = cls([{"params": list(network.parameters()), "weight_decay": config.weight_decay}], **settings)
        watch = WeightWatch(network.parameters())
        for step in range(steps):
            batch = collate_padded(traces[2 * step : 2 * step + 2])
            ids_SK, probs_SK = LabelSource(None, model.vocabulary).labels(batch)
            weight_S = torch.full((len(ids_SK),), 1 / len(ids_SK))
            network.zero_grad()
            network(batch, ids_SK, probs_SK, weight_S)["loss"].backward()
            watch.record()
            optimizer.step()
        fractions[name] = watch.compare().frac_changed
        updates[name] = [p.detach().float() - b.float() for p, b in zip(network.parameters(), before, strict=True)]
    full = updates["float32"]
    along = {name: _dot(update, full) / _dot(full, full) for name, update in updates.items()}
    return {name: WeightChange(fraction, along[name]) for name, fraction in fractions.items()}


def _dot(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    return float(sum((x.double() * y.double()).sum() for x, y in zip(a, b, strict=True)))
