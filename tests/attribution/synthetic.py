"""Synthetic trained models whose shift has a known cause; written as a probe writes them.

A baseline's logits have locks, forks, diffuse positions and places where a text may end. The planted components add up
in the logits: self-distillation of some strength, a temperature, log-odds for the EOS tokens, and a residual. Every
model has a small residual of its own, as any training leaves; the control has nothing else.

Shape legend: N positions, V vocabulary.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssdfast.config import NamedPath, ProbeConfig
from ssdfast.kernels import ProbeSpec, SamplingParams, probe_stats
from ssdfast.probing.plan import LoadedTrace, TraceItem
from ssdfast.probing.position_classes import POSITION_CLASSES, classify
from ssdfast.probing.table import gather, make_table
from ssdfast.probing.token_classes import BUILT_IN, TokenClasses
from ssdfast.sharded_table import ShardedTable, ShardMetadata
from tests.probe_summary import summary_without_numbers

VOCABULARY = 2048
END, CLOSE = 1, 2  # ids of the tokens that end the text and the thinking
CONFIG = ProbeConfig(baseline="baseline", trained="trained", traces=(NamedPath(name="own", path="traces"),))
TRAIN = CONFIG.train_sampling
ROWS = 1024
COMPONENTS = ("ssd", "temperature", "eos_bias")
NOISE = 0.02


def classes(vocabulary: int = VOCABULARY) -> TokenClasses:
    of_token = torch.zeros(vocabulary, dtype=torch.uint8)
    of_token[END], of_token[CLOSE] = BUILT_IN.index("end_of_text"), BUILT_IN.index("think_close")
    of_token[3:40], of_token[40:60] = BUILT_IN.index("digits"), BUILT_IN.index("self_correction")
    return TokenClasses(of_token, BUILT_IN)


@dataclass(frozen=True)
class Baseline:
    """Logits, and the traces that they stand in."""

    logits_NV: Tensor
    logp_NV: Tensor
    log_ratio_NV: Tensor
    """log q / p_a, -inf outside the support"""
    scored: list[LoadedTrace]
    classes: TokenClasses

    def positions(self, where: str) -> Tensor:
        """bool [N]: the positions that `Planted.where` names."""
        top1_N = self.logp_NV.max(1).values.exp()
        if where == "everywhere":
            return torch.ones_like(top1_N, dtype=torch.bool)
        return top1_N > 0.8 if where == "sure" else torch.from_numpy(self.class_N == POSITION_CLASSES.index(where))

    @cached_property
    def class_N(self) -> np.ndarray:
        """The class of each position, an index of POSITION_CLASSES."""
        p_N20 = self.logp_NV.topk(20, dim=1).values.exp()
        nucleus_N = 1 + (p_N20.cumsum(1) < 0.95).sum(1)
        tail_N = 1 - p_N20.sum(1)
        return classify(
            p_N20[:, 0].numpy(), p_N20[:, 1].numpy(), nucleus_N.numpy(), tail_N.numpy(), CONFIG.position_classes
        )

    @property
    def token_N(self) -> Tensor:
        return torch.from_numpy(np.concatenate([one.completion_ids for one in self.scored])).long()


def baseline(
    traces: int = 200, positions: int = 10, per_problem: int = 2, seed: int = 0, vocabulary: int = VOCABULARY
) -> Baseline:
    """Made-up logits: 55 % locks, 25 % forks, 12 % diffuse positions, 8 % where the text may end."""
    rng = torch.Generator().manual_seed(seed)
    n = traces * positions

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=rng)

    frequency_V = -0.8 * torch.log(1 + torch.randperm(vocabulary, generator=rng).float())
    z_NV = frequency_V + 1.3 * torch.randn(n, vocabulary, generator=rng)
    z_NV[:, [END, CLOSE]] = -20.0
    rest_N1 = z_NV.logsumexp(1, keepdim=True)
    kind_N = torch.rand(n, generator=rng)
    lock_N, fork_N, end_N = kind_N < 0.55, (kind_N >= 0.55) & (kind_N < 0.80), kind_N >= 0.92
    ids_N4 = torch.randint(60, vocabulary, (n, 4), generator=rng)
    lead_N4 = torch.full((n, 4), -torch.inf)
    sure_N1 = between(2.0, 6.0, n, 1)
    lead_N4[lock_N] = torch.cat([sure_N1, sure_N1 - between(1.5, 6.0, n, 3)], 1)[lock_N]
    lead_N4[fork_N] = between(0.3, 2.5, n, 4)[fork_N]
    z_NV.scatter_(1, ids_N4, torch.maximum(z_NV.gather(1, ids_N4), rest_N1 + lead_N4))
    ending_N2 = torch.where(end_N[:, None], between(-3.0, 1.0, n, 2), -between(7.0, 11.0, n, 2))
    z_NV[:, [END, CLOSE]] = z_NV.logsumexp(1, keepdim=True) + ending_N2
    token_N = torch.multinomial(z_NV.softmax(1), 1, generator=rng)[:, 0].numpy().astype(np.int32)
    scored = []
    for index in range(traces):
        ids = token_N[index * positions : (index + 1) * positions].copy()
        ids[ids == CLOSE] = 60
        if index % 2:
            ids[3 * positions // 4] = CLOSE
        problem = f"p{index // per_problem}"
        name = f"{problem}#{index % per_problem}"
        item = TraceItem("own", name, problem, 0, 1, 0, positions, positions, positions, index % 3 > 0)
        scored.append(LoadedTrace(item, np.zeros(1, np.int32), ids, np.arange(positions, dtype=np.int32)))
    return of_logits(z_NV, scored, classes(vocabulary))


def of_logits(z_NV: Tensor, scored: list[LoadedTrace], known: TokenClasses) -> Baseline:
    logp_NV = z_NV.log_softmax(1)
    top = logp_NV.topk(TRAIN.top_k, dim=1)
    q_NK = (top.values / TRAIN.temperature).softmax(1)
    q_NK = torch.where(q_NK.cumsum(1) - q_NK < TRAIN.top_p, q_NK, 0.0)
    log_q_NK = (q_NK / q_NK.sum(1, keepdim=True)).log()
    log_ratio_NV = torch.full_like(logp_NV, -torch.inf).scatter_(1, top.indices, log_q_NK - top.values)
    return Baseline(z_NV, logp_NV, log_ratio_NV, scored, known)


@dataclass(frozen=True)
class Planted:
    """The components of a planted shift."""

    strength: float = 0.0
    """s of (1 - s) p_a + s q"""
    spread: float = 0.0
    """of the strength: log-normal over positions"""
    tilted: bool = False
    """the same first step, but on the path of the natural gradient: p_a exp(s q / p_a)"""
    where: str = "everywhere"
    """the positions where self-distillation acts: everywhere, lock, fork, or sure (a largest probability over 0.8)"""
    temperature: float = 1.0
    eos_bias: float = 0.0
    """log-odds"""
    residual: float = 0.0
    """standard deviation of noise on the probabilities, relative; at most 0.28"""
    shared: float = 0.5
    """fraction of its variance that is the same at all positions"""
    on_logits: bool = False
    """the residual is noise on the logits instead. Its mean is not 0: like a temperature it makes the tails heavier"""
    seed: int = 0

    def steps(self, base: Baseline) -> dict[str, Tensor]:
        """[N, V] or smaller, for each component: what it adds to the logits."""
        rng = torch.Generator().manual_seed(1 + self.seed)
        found = {}
        n, v = base.logp_NV.shape
        if self.strength:
            noise_N1 = torch.randn(n, 1, generator=rng)
            s_N1 = self.strength * (self.spread * noise_N1 - self.spread**2 / 2).exp()
            if self.tilted:
                found["ssd"] = s_N1 * base.log_ratio_NV.exp()
            else:
                found["ssd"] = torch.log1p(s_N1.clamp(max=1) * base.log_ratio_NV.expm1())
            found["ssd"] = torch.where(base.positions(self.where)[:, None], found["ssd"], 0.0)
        if self.temperature != 1:
            found["temperature"] = base.logp_NV * (1 / self.temperature - 1)
        if self.eos_bias:
            found["eos_bias"] = torch.zeros(v)
            found["eos_bias"][base.classes.ids("end_of_text", "think_close")] = self.eos_bias
        return found

    def logits(self, base: Baseline, noise: float = NOISE) -> Tensor:
        """float32 [N, V] of the trained model."""
        rng = torch.Generator().manual_seed(10_007 + self.seed)
        n, v = base.logp_NV.shape
        z_NV = base.logp_NV + sum(self.steps(base).values()) + noise * torch.randn(n, v, generator=rng)
        if not self.residual:
            return z_NV
        if self.on_logits:
            return z_NV + self._residual(torch.randn(n, v, generator=rng), torch.randn(v, generator=rng))
        # Uniform, so that no probability falls below 0; the mean is taken out, so that probabilities change by 0 on
        # average over residuals and the residual has nothing of the other components.
        flat = [math.sqrt(12) * (torch.rand(shape, generator=rng) - 0.5) for shape in ((n, v), (v,))]
        change_NV = self._residual(*flat).clamp(-0.49, 0.49)
        p_NV = z_NV.softmax(1)
        return z_NV + torch.log1p(change_NV - (p_NV * change_NV).sum(1, keepdim=True))

    def _residual(self, own_NV: Tensor, shared_V: Tensor) -> Tensor:
        return self.residual * (math.sqrt(1 - self.shared) * own_NV + math.sqrt(self.shared) * shared_V)

    def fractions(self, base: Baseline, logits_b_NV: Tensor) -> dict[str, float]:
        """The fraction of KL(trained ‖ baseline) that each component explains, averaged over orders of adding them."""
        log_b_NV = logits_b_NV.log_softmax(1)
        p_b_NV = log_b_NV.exp()
        steps = self.steps(base)
        kl = float(torch.where(p_b_NV > 0, p_b_NV * (log_b_NV - base.logp_NV), 0.0).sum().double())

        def gain(names: tuple[str, ...]) -> float:
            if not names:
                return 0.0
            step_NV = sum(steps[name] for name in names) + torch.zeros_like(base.logp_NV)
            log_z_N1 = (base.logp_NV + step_NV).logsumexp(1, keepdim=True)
            return float(torch.where(p_b_NV > 0, p_b_NV * (step_NV - log_z_N1), 0.0).sum().double()) / kl

        found = dict.fromkeys(COMPONENTS, 0.0)
        orders = list(itertools.permutations(steps))
        gains = {subset: gain(subset) for n in range(len(steps) + 1) for subset in itertools.combinations(steps, n)}
        for order in orders:
            for place, name in enumerate(order):
                before = tuple(one for one in steps if one in order[:place])
                after = tuple(one for one in steps if one in order[: place + 1])
                found[name] += (gains[after] - gains[before]) / len(orders)
        return found | {"residual": 1 - sum(found.values())}

    def scaled(self, base: Baseline, rng: np.random.Generator) -> Planted:
        """The components present, about as large as the first of them in KL, up to a factor of 1.6 either way."""
        kl = {name: self.only(name).logits(base, 0.0) for name in self.present}
        size = {name: _kl(z, base) for name, z in kl.items()}
        first, *others = self.present
        changed = self
        for name in others:
            factor = math.sqrt(size[first] / size[name] * math.exp(rng.uniform(-0.5, 0.5)))
            changed = changed.times(name, factor)
        return changed

    @property
    def present(self) -> list[str]:
        values = {
            "ssd": self.strength,
            "temperature": self.temperature - 1,
            "eos_bias": self.eos_bias,
            "residual": self.residual,
        }
        return [name for name, value in values.items() if value]

    def only(self, name: str) -> Planted:
        """One component alone."""
        return replace(
            self,
            strength=self.strength if name == "ssd" else 0.0,
            temperature=self.temperature if name == "temperature" else 1.0,
            eos_bias=self.eos_bias if name == "eos_bias" else 0.0,
            residual=self.residual if name == "residual" else 0.0,
        )

    def times(self, name: str, factor: float) -> Planted:
        """The same with one component that many times as large."""
        if name == "ssd":
            return replace(self, strength=min(self.strength * factor, 1.0))
        if name == "temperature":
            return replace(self, temperature=1 / (1 + factor * (1 / self.temperature - 1)))
        if name == "eos_bias":
            return replace(self, eos_bias=self.eos_bias * factor)
        return replace(self, residual=self.residual * factor)


def _kl(logits_NV: Tensor, base: Baseline) -> float:
    log_b_NV = logits_NV.log_softmax(1)
    return float(torch.where(log_b_NV > -torch.inf, log_b_NV.exp() * (log_b_NV - base.logp_NV), 0.0).sum())


def write(directory: Path, base: Baseline, logits_b_NV: Tensor) -> Path:
    """A finished probe of the pair: the real kernel, the real table."""
    spec = ProbeSpec(
        top_logprobs=CONFIG.top_logprobs,
        eval_sampling=SamplingParams(**CONFIG.eval_sampling.model_dump()),
        train_sampling=SamplingParams(**TRAIN.model_dump()),
        lse_temperatures=CONFIG.lse_temperatures,
        token_class=base.classes.of_token,
        n_classes=len(base.classes.names),
    )
    token_N = base.token_N
    stats = (
        probe_stats(base.logits_NV[at : at + ROWS], logits_b_NV[at : at + ROWS], token_N[at : at + ROWS], spec)
        for at in range(0, len(token_N), ROWS)
    )
    table = make_table(base.scored, gather(stats), base.classes, CONFIG.position_classes)
    ShardedTable(str(directory / "positions")).write(0, table, ShardMetadata(""))
    eos_ids = base.classes.ids("end_of_text", "think_close")
    summary_without_numbers(CONFIG, base.classes.names, eos_ids).write(directory / "summary.json")
    return directory
