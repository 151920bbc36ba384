"""The gates of the kernels' benchmarks: answers for the first rows are compared with the float64 oracle."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from inputs import Hidden, Logits
from provider import GATE_ROWS, assert_plain
from torch import Tensor

from ssdfast.kernels import ModelStats, PairStats, ProbeSpec, ProbeStats, linear_probe_stats, probe_stats
from tests.kernels.cases import assert_matches_oracle, on_cpu


class LogitsGate:
    """Compares statistics of logits with the oracle, within the tests' own tolerance."""

    def __init__(self, x: Logits):
        self.few = Logits(*(tensor.cpu() for tensor in x.rows(GATE_ROWS)))

    def models(self) -> tuple[ModelStats, ModelStats]:
        """The oracle's columns of each model."""
        base, trained, token = self.few
        oracle = probe_stats(base.double(), trained.double(), token, ProbeSpec())
        assert oracle.trained
        return oracle.base, oracle.trained

    def plain(self, spec: ProbeSpec) -> Callable[[ProbeStats], None]:
        base, trained, token = self.few
        return lambda answer: assert_plain(answer, probe_stats(base.double(), trained.double(), token, spec))

    def ours(self, spec: ProbeSpec) -> Callable[[ProbeStats], None]:
        return lambda answer: assert_matches_oracle(on_cpu(answer), *self.few, spec)


class HiddenGate:
    """Compares statistics of hidden states with the oracle, whose logits every provider shares (``inputs.Hidden``)."""

    def __init__(self, x: Hidden):
        self.x = x.rows(GATE_ROWS)

    @cached_property
    def logits(self) -> tuple[Tensor, Tensor, Tensor]:
        hidden_base, head_base, hidden_trained, head_trained, token = self.x
        pairs = ((hidden_base, head_base), (hidden_trained, head_trained))
        exact = [hidden.double() @ head.double().T for hidden, head in pairs]
        base, trained = (z.float() for z in exact)
        on_grid = all(torch.equal(z.double(), e) for z, e in zip((base, trained), exact, strict=True))
        assert on_grid, "inputs are not on a grid"
        return base.cpu(), trained.cpu(), token.cpu()

    @cached_property
    def oracle(self) -> ProbeStats:
        hidden_base, head_base, hidden_trained, head_trained, token = self.x
        double = hidden_base.double(), head_base.double(), hidden_trained.double(), head_trained.double(), token
        return on_cpu(linear_probe_stats(*double, ProbeSpec(), backend="reference"))

    def models(self) -> tuple[ModelStats, ModelStats]:
        """The oracle's columns of each model."""
        assert self.oracle.trained
        return self.oracle.base, self.oracle.trained

    @property
    def pair(self) -> PairStats:
        assert self.oracle.pair
        return self.oracle.pair

    def plain(self, answer: ProbeStats) -> None:
        assert_plain(answer, self.oracle)

    def ours(self, spec: ProbeSpec) -> Callable[[ProbeStats], None]:
        return lambda answer: assert_matches_oracle(on_cpu(answer), *self.logits, spec)
