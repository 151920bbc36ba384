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

SAMPLE_SIZE = 4096
"""entries of each weight tensor that are compared, drawn at random once"""
MIN_FRAC_CHANGED = 1e-2
"""fraction of the weights. SmolLM2 in bfloat16 changes 0.3 % per step at the published learning rates, in float32 99 %.
With stochastic rounding few weights change per step too, but on average by the right amount"""
MIN_LEARNING_RATE_FRACTION = 1e-2
"""of the peak"""
_DECAY = 0.9
"""of the moving averages, which span about ten steps"""


@dataclass(frozen=True)
class WeightChange:
    """How one step changed the sampled weights."""

    frac_changed: float
    """fraction of the weights whose value changed"""
    median_ulps: float
    """median size of a change, in ULPs of the weight (the distance to the next number of its dtype); over the weights
    that changed, 0 if none did"""


class WeightWatch:
    """Compares a sample of the weights before and after a step. All weights would take the memory of another model.

    Of weights that are sharded over devices, each device compares its own shard.
    """

    def __init__(self, parameters: Iterable[Parameter], seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.parameters = [p for p in parameters if p.requires_grad and _local_shard(p).numel()]
        sizes = [_local_shard(p).numel() for p in self.parameters]
        self.indices = [
            torch.arange(size, device=p.device)
            if size <= SAMPLE_SIZE
            else torch.randint(size, (SAMPLE_SIZE,), generator=generator).to(p.device)
            for p, size in zip(self.parameters, sizes, strict=True)
        ]
        # A sampled entry stands for this many entries of its tensor.
        self.weights = [size / len(indices) for size, indices in zip(sizes, self.indices, strict=True)]
        self._previous: list[Tensor] = []

    @torch.no_grad()
    def record(self) -> None:
        """Remember the weights as they are before the step."""
        self._previous = self._values()

    @torch.no_grad()
    def compare(self) -> WeightChange:
        """The change since `record`."""
        counts, ulps, weights = [], [], []
        for before, after, weight in zip(self._previous, self._values(), self.weights, strict=True):
            changed = after != before
            counts.append((float(changed.sum()) * weight, len(before) * weight))
            size = ((after.double() - before.double()).abs() / _ulp(before))[changed]
            ulps.append(size.cpu())
            weights.append(torch.full((len(size),), weight, dtype=torch.float64))
        total = sum(count for _, count in counts)
        return WeightChange(
            sum(changed for changed, _ in counts) / total, _weighted_median(torch.cat(ulps), torch.cat(weights))
        )

    def _values(self) -> list[Tensor]:
        return [_local_shard(p).reshape(-1)[indices] for p, indices in zip(self.parameters, self.indices, strict=True)]


class DeadSteps:
    """Counts the steps that changed almost no weight, and decides when to warn: at the first such step, the 10th, the
    100th and so on.

    Steps at learning rate 0, or below a hundredth of the peak, count for nothing: a step at the start of a warm-up or
    at the end of a schedule changes little in a healthy run too.
    """

    def __init__(self, peak_learning_rate: float) -> None:
        self.least = MIN_LEARNING_RATE_FRACTION * peak_learning_rate
        self.count = 0
        self._next_warning = 1

    def add(self, frac_changed: float, learning_rate: float) -> bool:
        """Whether to warn after this step."""
        if frac_changed >= MIN_FRAC_CHANGED or learning_rate <= 0 or learning_rate < self.least:
            return False
        self.count += 1
        if self.count < self._next_warning:
            return False
        self._next_warning *= 10
        return True


def warmup_warning(num_steps: int, warmup_steps: int, learning_rate: float) -> str:
    """The sentence about a run that warm-up keeps from its learning rate; empty for any other run."""
    if not 0 < num_steps <= warmup_steps:
        return ""
    if num_steps == 1:
        return (
            f"the only step has learning rate 0, as warm-up starts there (warmup_steps={warmup_steps}), and changes no"
            " weight: train for more steps, or set warmup_steps=0"
        )
    highest = learning_rate * (num_steps - 1) / warmup_steps
    return (
        f"all {num_steps:,} steps are warm-up (warmup_steps={warmup_steps}): the learning rate ends at {highest:.3g}"
        f" and never reaches {learning_rate:.3g}, so train for more steps, or lower warmup_steps"
    )


class NoiseScale:
    """How much of a step's gradient is noise, from the gradients of its micro-batches.

    A gradient averaged over n tokens has the expected square |G|² + S / n, with G the true gradient and S the trace of
    a token's gradient covariance. M micro-batches of n_i tokens, N together, and their mean give both: with
    A = Σ (n_i / N) |g_i|² and B = |Σ (n_i / N) g_i|²

        S = (A - B) N / (M - 1)        |G|² = B - S / N

    (McCandlish et al. 2018, arXiv 1812.06162, appendix A.1, for micro-batches of unequal size). One step alone is too
    noisy: both are averaged over steps before their ratio is taken.
    """

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self._square: Tensor | None = None
        self._micro_batches: list[tuple[float, int]] = []
        self._noise, self._signal, self._weight = 0.0, 0.0, 0.0
        # The hook gets the gradient of one backward pass, before it is added to the accumulated one.
        self._hooks = [p.register_hook(self._add) for p in self.parameters]

    def end_micro_batch(self, tokens: int) -> None:
        """After each backward pass, whose loss is the sum over `tokens` tokens divided by the tokens of the step.

        Gradients that are sharded as they come (FSDP) pass no hook, and `end_step` then returns None.
        """
        if self._square is not None:
            self._micro_batches.append((float(self._square), tokens))
        self._square = None

    def end_step(self, norm: float) -> tuple[float, float] | None:
        """(noise variance S / N, squared signal |G|²), averaged over the steps so far; None before two micro-batches.

        norm: of the whole step's gradient, before clipping. A step that is not finite is ignored.
        """
        pairs = [pair for pair in _gather_over_ranks(self._micro_batches) if pair[1]]
        self._micro_batches = []
        tokens = sum(n for _, n in pairs)
        if len(pairs) > 1 and math.isfinite(norm) and all(math.isfinite(square) for square, _ in pairs):
            spread = sum(square * tokens / n for square, n in pairs)
            noise = (spread - norm**2) / (len(pairs) - 1)
            self._noise += (1 - _DECAY) * (noise - self._noise)
            self._signal += (1 - _DECAY) * (norm**2 - noise - self._signal)
            self._weight += (1 - _DECAY) * (1 - self._weight)
        if not self._weight:
            return None
        return self._noise / self._weight, self._signal / self._weight

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _add(self, gradient: Tensor) -> None:
        square = torch.linalg.vector_norm(_local_shard(gradient).detach(), dtype=torch.float32).double().square()
        self._square = square if self._square is None else self._square + square.to(self._square.device)


def _gather_over_ranks(pairs: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """The micro-batches of all ranks. Each scales its loss by the number of ranks, as gradients are averaged."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return pairs
    ranks = torch.distributed.get_world_size()
    gathered: list[list[tuple[float, int]]] = [[] for _ in range(ranks)]
    torch.distributed.all_gather_object(gathered, pairs)
    return [(square / ranks**2, tokens) for rank in gathered for square, tokens in rank]


def _local_shard(tensor: Tensor) -> Tensor:
    """This rank's shard of a sharded tensor; any other tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _ulp(values: Tensor) -> Tensor:
    """float64: the distance from each number to the next one away from zero in its dtype."""
    away = torch.where(values < 0, -torch.inf, torch.inf).to(values.dtype)
    if values.dtype in (torch.float32, torch.float64):
        return (torch.nextafter(values, away).double() - values.double()).abs()
    info = torch.finfo(values.dtype)
    exponent = torch.frexp(values.float()).exponent.clamp(min=int(math.log2(info.smallest_normal)) + 1) - 1
    return torch.ldexp(torch.full_like(values, info.eps, dtype=torch.float64), exponent)


def _weighted_median(values: Tensor, weights: Tensor) -> float:
    if not len(values):
        return 0.0
    order = values.argsort()
    cumulative = weights[order].cumsum(0)
    return float(values[order][int(torch.searchsorted(cumulative, cumulative[-1] / 2))])
