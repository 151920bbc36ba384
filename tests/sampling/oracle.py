"""The sampling distribution by its definition, in float64, and a test of draws against it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ssdfast.config import EngineSamplingParams


def distribution(logits_V: Tensor, sampling: EngineSamplingParams, seen: Sequence[int] = ()) -> Tensor:
    """Float64 [V]: penalty on the tokens seen, temperature, min-p, top-k, then the nucleus; ties by smaller id."""
    z = logits_V.double().clone()
    z[list(set(seen))] -= sampling.presence_penalty
    z = z / sampling.temperature
    kept = z.softmax(0) >= sampling.min_p * z.softmax(0).max()
    z = torch.where(kept, z, -torch.inf)
    order = sorted(range(len(z)), key=lambda v: (-z[v].item(), v))
    if sampling.top_k:
        order = order[: sampling.top_k]
    p = z[order].softmax(0)
    out = torch.zeros_like(z)
    reached = 0.0
    for v, mass in zip(order, p.tolist(), strict=True):
        if reached >= sampling.top_p:
            break
        out[v] = mass
        reached += mass
    return out / out.sum()


def chi_squared_p(counts: Sequence[int], probs: Sequence[float]) -> float:
    """The chance of counts at least this far from `probs`; 0 where something was drawn that cannot be.

    Tokens expected fewer than 5 times count as one.
    """
    seen, p = np.asarray(counts, float), np.asarray(probs, float)
    if seen[p == 0].any():
        return 0.0
    expected = p / p.sum() * seen.sum()
    common = expected >= 5
    rest = expected[~common].sum()
    if rest >= 5:
        seen = np.append(seen[common], seen[~common].sum())
        expected = np.append(expected[common], rest)
    else:
        seen, expected = seen[common], expected[common] * seen[common].sum() / expected[common].sum()
    if len(expected) < 2:
        return 1.0
    statistic = ((seen - expected) ** 2 / expected).sum()
    halves = torch.tensor([(len(expected) - 1) / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(*halves))
