"""Is this run learning anything? What each optimizer step shows of it, without a second backward pass.

Shape legend: M micro-batches of a step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Parameter

SAMPLED = 4096
"""entries of each weight that are watched, drawn at random once"""
_MEMORY = 0.9
"""of the moving averages: ten steps or so"""


@dataclass(frozen=True)
class Change:
    """Of the watched weights in one step."""

    share: float
    """that are another number than before"""
    spacings: float
    """median size of a change, in units of the weight's own spacing (the distance to the next number of its dtype);
    of those that changed, 0 where none did"""


class WeightWatch:
    """Compares a sample of the weights before and after a step: all of them would take the memory of another model.

    Of weights that are shared out among devices, each watches its own.
    """

    def __init__(self, parameters: Iterable[Parameter], seed: int = 0) -> None:
        chooser = torch.Generator().manual_seed(seed)
        self.parameters = [p for p in parameters if p.requires_grad and _local(p).numel()]
        sizes = [_local(p).numel() for p in self.parameters]
        self.places = [
            torch.arange(size, device=p.device)
            if size <= SAMPLED
            else torch.randint(size, (SAMPLED,), generator=chooser).to(p.device)
            for p, size in zip(self.parameters, sizes, strict=True)
        ]
        # A weight stands for as many as its tensor has.
        self.weights = [size / len(places) for size, places in zip(sizes, self.places, strict=True)]
        self._before: list[Tensor] = []

    @torch.no_grad()
    def before(self) -> None:
        self._before = self._values()

    @torch.no_grad()
    def after(self) -> Change:
        """What has become of the weights since `before`."""
        shares, sizes, weights = [], [], []
        for before, after, weight in zip(self._before, self._values(), self.weights, strict=True):
            moved = after != before
            shares.append((float(moved.sum()) * weight, len(before) * weight))
            size = ((after.double() - before.double()).abs() / _spacing(before))[moved]
            sizes.append(size.cpu())
            weights.append(torch.full((len(size),), weight, dtype=torch.float64))
        total = sum(count for _, count in shares)
        return Change(sum(moved for moved, _ in shares) / total, _median(torch.cat(sizes), torch.cat(weights)))

    def _values(self) -> list[Tensor]:
        return [_local(p).reshape(-1)[places] for p, places in zip(self.parameters, self.places, strict=True)]


class NoiseScale:
    """How much of a step's gradient is noise, from the gradients of its micro-batches.

    A gradient averaged over n tokens has the expected square |G|² + S / n, with G the true gradient and S the trace of
    a token's gradient covariance. M micro-batches of n_i tokens, N together, and their mean give both: with
    A = Σ (n_i / N) |g_i|² and B = |Σ (n_i / N) g_i|²

        S = (A - B) N / (M - 1)        |G|² = B - S / N

    (McCandlish et al. 2018, arXiv 1812.06162, appendix A.1, for parts of unequal size). One step says little: both are
    averaged over steps before their ratio is taken.
    """

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self._now: Tensor | None = None
        self._parts: list[tuple[float, int]] = []
        self._noise, self._signal, self._weight = 0.0, 0.0, 0.0
        # The hook sees a backward's own gradient, before it is added to what is there.
        self._hooks = [p.register_hook(self._add) for p in self.parameters]

    def micro_batch(self, tokens: int) -> None:
        """After each backward; its loss was the sum over `tokens` tokens by the number of them in the step.

        Gradients that are sharded as they come (FSDP) are not seen, and nothing is told.
        """
        if self._now is not None:
            self._parts.append((float(self._now), tokens))
        self._now = None

    def step(self, norm: float) -> tuple[float, float] | None:
        """After the last one: (noise, signal), S / N and |G|² averaged over the steps so far; None before two parts.

        norm: of the whole step's gradient, before clipping. A step that is not finite is left out.
        """
        parts, self._parts = [part for part in _of_all_ranks(self._parts) if part[1]], []
        tokens = sum(n for _, n in parts)
        if len(parts) > 1 and math.isfinite(norm) and all(math.isfinite(square) for square, _ in parts):
            spread = sum(square * tokens / n for square, n in parts)
            noise = (spread - norm**2) / (len(parts) - 1)
            self._noise += (1 - _MEMORY) * (noise - self._noise)
            self._signal += (1 - _MEMORY) * (norm**2 - noise - self._signal)
            self._weight += (1 - _MEMORY) * (1 - self._weight)
        if not self._weight:
            return None
        return self._noise / self._weight, self._signal / self._weight

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _add(self, gradient: Tensor) -> None:
        square = torch.linalg.vector_norm(_local(gradient).detach(), dtype=torch.float32).double().square()
        self._now = square if self._now is None else self._now + square.to(self._now.device)


def _of_all_ranks(parts: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """Everyone's micro-batches; a rank's loss stands for all of them, as their gradients are averaged."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return parts
    ranks = torch.distributed.get_world_size()
    found: list[list[tuple[float, int]]] = [[] for _ in range(ranks)]
    torch.distributed.all_gather_object(found, parts)
    return [(square / ranks**2, tokens) for rank in found for square, tokens in rank]


def _local(tensor: Tensor) -> Tensor:
    """This rank's part of a sharded tensor, and others as they are."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _spacing(values: Tensor) -> Tensor:
    """float64: from each number to the next one away from zero in its dtype."""
    away = torch.where(values < 0, -torch.inf, torch.inf).to(values.dtype)
    if values.dtype in (torch.float32, torch.float64):
        return (torch.nextafter(values, away).double() - values.double()).abs()
    info = torch.finfo(values.dtype)
    exponent = torch.frexp(values.float()).exponent.clamp(min=int(math.log2(info.smallest_normal)) + 1) - 1
    return torch.ldexp(torch.full_like(values, info.eps, dtype=torch.float64), exponent)


def _median(values: Tensor, weights: Tensor) -> float:
    if not len(values):
        return 0.0
    order = values.argsort()
    reached = weights[order].cumsum(0)
    return float(values[order][int(torch.searchsorted(reached, reached[-1] / 2))])
