"""Makers of logits of two models that are hard for a kernel."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

INF = float("inf")


def language_like(n: int, v: int, g: torch.Generator, spread: float = 2.0) -> Tensor:
    """Logits with a broad tail and a few likely tokens, as a language model has them."""
    z = torch.randn(n, v, generator=g) * spread
    heads = torch.randint(0, v, (n, min(v, 12)), generator=g)
    return z.scatter_add(1, heads, torch.rand(n, min(v, 12), generator=g) * 14)


def pair(n: int, v: int, spread: float = 2.0, shift: float = 0.3):
    def make(g):
        a = language_like(n, v, g, spread)
        return a, a + shift * torch.randn(n, v, generator=g)

    return make


def edit(edit: Callable[[Tensor, Tensor], object], n: int = 4, v: int = 1003):
    def make(g):
        a, b = pair(n, v)(g)
        edit(a, b)
        return a, b

    return make


def flat(g):
    """Nuclei of thousands of tokens, in rows of negative logits and in rows where float32 has few bits left."""
    a, b = torch.randn(4, 3001, generator=g) * 0.4 - 1, torch.randn(4, 3001, generator=g) - 1
    a[2:] -= 20000
    b[2:] += 20000
    return a, b


def bad_rows(a: Tensor, b: Tensor) -> None:
    a[1, 5], a[3, 0], b[4, -1] = torch.nan, INF, torch.nan
    a[6], b[7] = -INF, -INF


def some_impossible(a: Tensor, b: Tensor) -> None:
    a[0, ::2] = b[0, ::2] = -INF  # the same tokens
    a[1, ::3] = -INF  # forbidden by the baseline alone
    b[2, 5:40] = -INF  # by the trained model alone: KL(a || b) is infinite
    a[3, 7:], b[3, 7:] = -INF, -INF  # fewer tokens than top_k


def one_token(a: Tensor, b: Tensor) -> None:
    a[:], b[:] = 0.0, 0.0
    a[:, 17], b[:, 17] = 27.6, 28.5  # mass 1 - 1e-9


def tiny_kl(g):
    a = language_like(6, 5000, g)
    return a, a + 4.5e-4 * torch.randn(6, 5000, generator=g)


def sorted(g):
    a = language_like(3, 4099, g).sort(1).values  # every element is a new maximum
    a[1] = a[1].flip(0)
    return a, a.flip(1)


def signed_zeros(g):
    a = torch.zeros(2, 300)
    a[:, ::2] = -0.0
    a[:, 7] = 1.0
    return a, a.clone()


def tied(g):
    a = (language_like(4, 2050, g) * 2).round() / 2
    return a, (a + torch.randn(4, 2050, generator=g)).round()


def all_equal(g):
    return torch.full((2, 1000), 3.0), torch.full((2, 1000), -3.0)


def far_support(g):
    """The trained model has a mass of 1e-45 to 1e-900 on the baseline's support: its logarithm is not -inf."""
    a, b = pair(5, 1500)(g)
    best = a.topk(40, dim=1).indices
    return a, b.scatter_add(1, best, -torch.tensor([30.0, 90.0, 130.0, 700.0, 2000.0])[:, None].expand(5, 40))


def steep(g):
    """Tokens of a probability down to 1e-120 are in the support of a hot baseline, and count in its chi-squared."""
    a = -torch.linspace(0.1, 14, 400).repeat(4, 1) * torch.tensor([1.0, 6.0, 10.0, 20.0])[:, None]
    a = a[:, torch.randperm(400, generator=g)]
    return a, a + 0.1 * torch.randn(4, 400, generator=g)
