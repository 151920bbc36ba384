"""Logits and hidden states to measure on.

Seven rows of eight have a few likely tokens over a broad tail, as a language model mostly has; the eighth has none, so
that its nucleus has tens of thousands of tokens. The trained model is the baseline with noise of 0.2-0.3 on every
logit. Rows repeat beyond DISTINCT: no operation looks from one row to another.

Shape legend: N rows, V vocabulary, H hidden size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from common import DEVICE, HALF
from torch import Tensor

from tests.kernels.cases import language_like

DISTINCT = 256


class Logits(NamedTuple):
    """Logits of both models [N, V], and the baseline's likeliest tokens [N]."""

    base_NV: Tensor
    trained_NV: Tensor
    token_N: Tensor

    def rows(self, n: int) -> Logits:
        return Logits(*(tensor[:n] for tensor in self))


class Hidden(NamedTuple):
    """Hidden states [N, H] and heads [V, H] of both models in HALF, and a token [N] for each row.

    All values are on grids so coarse that every product and every partial sum is exact in float32: the logits are the
    same in any order of summation, and the comparison with the float64 oracle can be strict.
    """

    hidden_base_NH: Tensor
    head_base_VH: Tensor
    hidden_trained_NH: Tensor
    head_trained_VH: Tensor
    token_N: Tensor

    def rows(self, n: int) -> Hidden:
        return Hidden(
            self.hidden_base_NH[:n],
            self.head_base_VH,
            self.hidden_trained_NH[:n],
            self.head_trained_VH,
            self.token_N[:n],
        )


def logits_pair(n: int, v: int, dtype: torch.dtype = HALF, device: str = DEVICE) -> Logits:
    g = torch.Generator().manual_seed(0)
    distinct = min(n, DISTINCT)
    base_NV = language_like(distinct, v, g)
    base_NV[::8] = torch.randn(base_NV[::8].shape, generator=g) * 2
    trained_NV = base_NV + 0.3 * torch.randn(distinct, v, generator=g)
    few = Logits(base_NV.to(device, dtype), trained_NV.to(device, dtype), base_NV.argmax(1).to(device))
    return few if n <= DISTINCT else Logits(*(_repeated(tensor, n) for tensor in few))


def hidden_pair(n: int, v: int, h: int, device: str = DEVICE) -> Hidden:
    g = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, device=device)

    distinct = min(n, DISTINCT)
    head_base_VH = normal(v, h).div_(h**0.5)  # rows of length 1: a hidden state of 7 x such a row gives that token 7
    likely = torch.randint(0, v, (distinct, 12), generator=g, device=device)
    strength = torch.rand(distinct, 12, generator=g, device=device).mul_(14)
    strength[::8] = 0
    hidden_base_NH = 2 * normal(distinct, h) + torch.einsum("nk,nkh->nh", strength, head_base_VH[likely])
    hidden_trained_NH = hidden_base_NH + 0.15 * normal(distinct, h)
    head_trained_VH = normal(v, h).mul_(0.1 / h**0.5).add_(head_base_VH)
    token_N = likely.gather(1, strength.argmax(1, keepdim=True))[:, 0]
    return Hidden(
        _repeated(_on_grid(hidden_base_NH, 1 / 16), n),
        _on_grid(head_base_VH, 1 / 1024),
        _repeated(_on_grid(hidden_trained_NH, 1 / 16), n),
        _on_grid(head_trained_VH, 1 / 1024),
        _repeated(token_N, n),
    )


def _on_grid(x: Tensor, step: float) -> Tensor:
    """bf16 keeps eight bits: multiples of a step up to 255 of them are exact. Overwrites x."""
    return x.div_(step).round_().clamp_(-255, 255).mul_(step).to(HALF)


def _repeated(x: Tensor, n: int) -> Tensor:
    return x.repeat(-(-n // x.shape[0]), *([1] * (x.dim() - 1)))[:n]


def token_classes(v: int, classes: int = 12) -> Tensor:
    """A class for each token; nine of ten are in class 0, as most of a real vocabulary has no class of its own."""
    g = torch.Generator().manual_seed(1)
    random_V = torch.randint(0, classes, (v,), generator=g)
    return torch.where(torch.rand(v, generator=g) < 0.9, 0, random_V).to(torch.uint8)
