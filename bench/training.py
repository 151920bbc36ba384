"""SmolLM2-135M: the noise that the expected loss takes out of traces' gradients; the weights that a step changes.

Used by claims_training.py.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from ssdfast.sampling.requests import Engines, plan_for
from ssdfast.sampling.runner import fill
from ssdfast.training.activation_checkpointing import accumulate_in_float32
from ssdfast.training.collate import padded
from ssdfast.training.diagnostics import WeightWatch
from ssdfast.training.examples import Example, read_examples
from ssdfast.training.label_source import Labels
from ssdfast.training.loss import make_trainable
from ssdfast.training.optimizers import optimizer_of
from ssdfast.training.runner import fit
from ssdfast.workflows.study import demo

HOME = ROOT / "runs" / "bench-training"
TRACES, TOKENS = 24, 48
LEARNT, HELD_OUT = 60, 32
RECIPE: dict[str, Any] = {"learning_rate": 1e-5, "min_learning_rate": 1e-5, "batch_size": 2, "num_train_epochs": 2}
STEPS = LEARNT // RECIPE["batch_size"] * RECIPE["epochs"]
DECODING = EngineSamplingParams(**PRESETS["demo"].train_sampling.model_dump())


@dataclass(frozen=True)
class Noise:
    """Of the gradients of single traces, each averaged over its tokens."""

    variances: dict[str, float]
    """trace of the covariance over traces, by loss"""
    means: dict[str, float]
    """square of the mean gradient, less what chance adds to it"""
    cosines: dict[int, float]
    """of the two losses' mean gradients over the first so many traces"""

    def cosine_over_allowed(self, traces: int) -> float:
        """The cosine, over what it would be were both means of one true gradient and the sampled one's noise all."""
        signal = self.means["soft"]
        return self.cosines[traces] / (signal / (signal + self.variances["sampled"] / traces)) ** 0.5

    @property
    def ratio(self) -> float:
        return self.variances["sampled"] / self.variances["soft"]


def examples(directory: Path, problems: list[Problem], seed: int = 0) -> list[Example]:
    """Traces of sums, asked with two worked examples, with the 20 likeliest tokens of each step."""
    baseline = demo.convert(HOME / "model")
    config = SampleConfig(
        model=str(baseline), prompt=demo.PROMPT, sampling=DECODING, max_new_tokens=TOKENS, top_logprobs=20, seed=seed
    )
    plan = plan_for(config, problems)
    with Engines(config, SampleExecution(), plan) as engines:
        fill(plan, engines, directory, "traces")
    model = models.outline(str(baseline))
    return list(read_examples(directory, model.vocabulary))


def held_out(seed: int) -> dict[str, float]:
    """Cross-entropy of the baseline's q on held-out traces, nats a token: at the baseline and after STEPS steps of each
    loss on the same traces; and its floor, the entropy of q."""
    home = HOME / f"seed-{seed}"
    problems = chain_sums(LEARNT + HELD_OUT, seed)
    examples(home / "learnt", problems[:LEARNT], seed)
    unseen = examples(home / "unseen", problems[LEARNT:], seed)
    found = {"baseline": _cross_entropy(HOME / "model", unseen), "floor": _entropy(unseen)}
    for loss in ("sampled", "soft"):
        config = TrainingRunConfig(
            model=str(HOME / "model"), traces=str(home / "learnt"), seed=seed, loss=loss, save_steps=1000, **RECIPE
        )
        shutil.rmtree(home / loss, ignore_errors=True)
        found[loss] = _cross_entropy(fit(config, home / loss, TrainExecution()), unseen)
        shutil.rmtree(home / loss)
    return found


def _cross_entropy(path: Path, shown: list[Example]) -> float:
    model = models.load(str(path), "float32")
    network, labels = make_trainable(model.model), Labels(DECODING, model.vocabulary)
    total, tokens = 0.0, 0
    with torch.inference_mode():
        for example in shown:
            batch = padded([example])
            ids_SK, probs_SK = labels.of(batch)
            ones_S = torch.ones(len(ids_SK))
            total += float(network(batch, ids_SK, probs_SK, ones_S)["loss"])
            tokens += len(ids_SK)
    return total / tokens


def _entropy(shown: list[Example]) -> float:
    probs_SK = torch.cat([Labels(DECODING, 0).of(padded([example]))[1] for example in shown])
    return float(torch.special.entr(probs_SK.double()).sum() / len(probs_SK))


def gradient_noise(shown: list[Example]) -> Noise:
    model = models.load(str(HOME / "model"), "float32")
    labels = {"sampled": Labels(None, model.vocabulary), "soft": Labels(DECODING, model.vocabulary)}
    network = make_trainable(model.model)
    parameters = list(network.parameters())
    sums = {name: [torch.zeros_like(p) for p in parameters] for name in labels}
    squares = dict.fromkeys(labels, 0.0)
    cosines = {}
    for count, example in enumerate(shown, 1):
        batch = padded([example])
        for name, of in labels.items():
            network.zero_grad()
            ids_SK, probs_SK = of.of(batch)
            weight_S = torch.full((len(ids_SK),), 1 / len(ids_SK))
            network(batch, ids_SK, probs_SK, weight_S)["loss"].backward()
            for total, parameter in zip(sums[name], parameters, strict=True):
                total += parameter.grad
                squares[name] += float(torch.linalg.vector_norm(parameter.grad, dtype=torch.float64)) ** 2
        if count in (3, 6, 12, len(shown)):
            a, b = sums["sampled"], sums["soft"]
            cosines[count] = _dot(a, b) / (_dot(a, a) * _dot(b, b)) ** 0.5
    n = len(shown)
    mean = {name: _dot(total, total) / n**2 for name, total in sums.items()}
    variance = {name: (squares[name] - n * mean[name]) / (n - 1) for name in labels}
    return Noise(variance, {name: mean[name] - variance[name] / n for name in labels}, cosines)


def converging(shown: list[Example], draws: tuple[int, ...] = (1, 100, 10_000)) -> dict[int, float]:
    """Cosine of the gradients with expected labels and with the mean of so many labels drawn from q at every position.

    A drawn trace has one such label a position: the mean over more of them is what more traces through the same
    positions would give.
    """
    model = models.load(str(HOME / "model"), "float32")
    network, labels = make_trainable(model.model), Labels(DECODING, model.vocabulary)
    chance = torch.Generator().manual_seed(0)

    def gradient(count: int) -> list[torch.Tensor]:
        network.zero_grad()
        for example in shown:
            batch = padded([example])
            ids_SK, probs_SK = labels.of(batch)
            if count:
                drawn = torch.multinomial(probs_SK, count, replacement=True, generator=chance)
                probs_SK = torch.zeros_like(probs_SK).scatter_add_(1, drawn, torch.full(drawn.shape, 1 / count))
            network(batch, ids_SK, probs_SK, torch.full((len(ids_SK),), 1 / len(ids_SK)))["loss"].backward()
        return [p.grad.clone() for p in network.parameters()]

    expected = gradient(0)
    found = {}
    for count in draws:
        mine = gradient(count)
        found[count] = _dot(mine, expected) / (_dot(mine, mine) * _dot(expected, expected)) ** 0.5
    return found


@dataclass(frozen=True)
class Moved:
    """By some steps of training."""

    share: float
    """of the weights, by the last step"""
    kept: float
    """of the movement that the same steps make in float32, along it: 1 where none is lost, 0 where all is"""


def moved(shown: list[Example], lr: float = 1e-6, steps: int = 6) -> dict[str, Moved]:
    """What AdamW of two traces a step does to weights in float32, in bfloat16, and in bfloat16 rounded by chance."""
    ways = {
        "float32": ("float32", TrainConfig(learning_rate=lr)),
        "bfloat16": ("bfloat16", TrainConfig(learning_rate=lr)),
        "rounded by chance": ("bfloat16", TrainConfig(learning_rate=lr, optimizer="adamw_bf16")),
    }
    shares, moves = {}, {}
    for name, (dtype, config) in ways.items():
        model = models.load(str(HOME / "model"), dtype)
        network = make_trainable(model.model)
        if config.optimizer == "adamw_bf16":
            accumulate_in_float32(network)
        before = [p.detach().clone() for p in network.parameters()]
        made, settings = optimizer_of(config)
        updates = made([{"params": list(network.parameters()), "weight_decay": config.weight_decay}], **settings)
        watch = WeightWatch(network.parameters())
        for step in range(steps):
            batch = padded(shown[2 * step : 2 * step + 2])
            ids_SK, probs_SK = Labels(None, model.vocabulary).of(batch)
            weight_S = torch.full((len(ids_SK),), 1 / len(ids_SK))
            network.zero_grad()
            network(batch, ids_SK, probs_SK, weight_S)["loss"].backward()
            watch.before()
            updates.step()
        shares[name] = watch.after().share
        moves[name] = [p.detach().float() - b.float() for p, b in zip(network.parameters(), before, strict=True)]
    asked = moves["float32"]
    along = {name: _dot(move, asked) / _dot(asked, asked) for name, move in moves.items()}
    return {name: Moved(share, along[name]) for name, share in shares.items()}


def _dot(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    return float(sum((x.double() * y.double()).sum() for x, y in zip(a, b, strict=True)))
