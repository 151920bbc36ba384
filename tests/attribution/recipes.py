"""Simulated studies: recipes whose trainings differ, as those of a real recipe do.

A recipe is a planted shift and a jitter. Every training of it has its own temperature, EOS bias and strength, drawn
around the planted ones, beside the noise of `synthetic`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.as_json import attribute

from .synthetic import NOISE, TRAIN, Baseline, Planted, baseline, write


@dataclass(frozen=True)
class Jitter:
    """Standard deviations between the trainings of a recipe."""

    temperature: float = 0.0
    eos_bias: float = 0.0
    strength: float = 0.0

    def draw(self, planted: Planted, rng: np.random.Generator) -> Planted:
        """One training of a recipe."""
        return replace(
            planted,
            temperature=planted.temperature + self.temperature * rng.standard_normal(),
            eos_bias=planted.eos_bias + self.eos_bias * rng.standard_normal(),
            strength=planted.strength + self.strength * rng.standard_normal(),
            seed=int(rng.integers(2**31)),
        )


PLAIN = Planted()
SHAPE = Jitter(temperature=0.03, eos_bias=0.2)
STRENGTH = Jitter(strength=0.04)
ALL = Jitter(temperature=0.03, eos_bias=0.2, strength=0.04)


@dataclass(frozen=True)
class Setup:
    """One simulated study of an arm and its control."""

    arm: Planted
    control: Planted = PLAIN
    jitter: Jitter = SHAPE
    seeds: tuple[int, int] = (3, 3)
    """of the arm and of the control"""
    problems: int = 60
    positions: int = 10
    """of each of the two traces of a problem"""
    noise: float = NOISE


def simulate(setup: Setup, directory: Path, seed: int) -> dict[str, Any]:
    """The attribution of a study with baseline and trainings of its own."""
    base = baseline(2 * setup.problems, setup.positions, seed=seed, vocabulary=512)
    rng = np.random.default_rng((seed, 1))
    arms = {
        name: [
            write(directory / f"{name}-{i}", base, setup.jitter.draw(planted, rng).logits(base, setup.noise))
            for i in range(count)
        ]
        for name, planted, count in zip(("arm", "control"), (setup.arm, setup.control), setup.seeds, strict=True)
    }
    return attribute(arms, "control")


def distilled(base: Baseline, strength: float, temperature: float, top_k: int, top_p: float, seed: int) -> Tensor:
    """Logits of a model that is self-distilled from samples with other parameters than the probe's."""
    top = base.logp_NV.topk(top_k, dim=1)
    q_NK = (top.values / temperature).softmax(1)
    q_NK = torch.where(q_NK.cumsum(1) - q_NK < top_p, q_NK, 0.0)
    q_NV = torch.zeros_like(base.logp_NV).scatter_(1, top.indices, q_NK / q_NK.sum(1, keepdim=True))
    rng = torch.Generator().manual_seed(seed)
    noise_NV = NOISE * torch.randn(base.logp_NV.shape, generator=rng)
    return ((1 - strength) * base.logp_NV.exp() + strength * q_NV).log() + noise_NV


WRONG_SAMPLING: Sequence[tuple[float, int, float]] = (
    (0.7, 20, 0.95), (1.5, 20, 0.95), (1.3, 20, 0.95), (1.5, 5, 0.95), (TRAIN.temperature, 5, 0.95),
    (TRAIN.temperature, 20, 0.8),
)  # fmt: skip
"""temperature, top-k and top-p of training samples that differ from the probe's"""
