"""Rows with whole blocks of tokens that cannot occur, and rows at the edges of float32.

V covers two chunks of every kernel, of 2,048 tokens each, and a part of a third.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS, V, CHUNK, BLOCK = 5, 4500, 2048, 256
INF = float("inf")
LARGEST = 3e38  # twice that overflows float32


def _masks() -> Tensor:
    """Which tokens can occur in each row."""
    possible = torch.ones(ROWS, V, dtype=torch.bool)
    possible[0, :CHUNK] = False
    possible[1, CHUNK : 2 * CHUNK] = False
    possible[1, -BLOCK:] = False
    possible[2, : V - 30] = False  # little more than a top list, at the very end
    possible[3] = torch.arange(V) // BLOCK % 2 == 1  # every other block
    possible[4, CHUNK - 40 : V - 1] = False
    return possible


def _masked(z: Tensor, possible: Tensor) -> Tensor:
    return torch.where(possible, z, -INF)


def _random(g: torch.Generator, spread: float) -> Tensor:
    return torch.randn(ROWS, V, generator=g) * spread


def near(value: float, spread: float = 1.5):
    """Both models allow the same tokens; their logits are near ``value``."""

    def make(g):
        a = _random(g, spread)
        b = a + _random(g, 0.3 * spread)
        return _masked(value + a, _masks()), _masked(value + b, _masks())

    return make


def forbidden_apart(g):
    """Each model forbids blocks of its own, and the trained one shares no token of some rows."""
    a, b = _random(g, 1.5) - 720, _random(g, 1.5) - 1500
    return _masked(a, _masks()), _masked(b, _masks().roll(1, 0))


def flat_and_tiny(g):
    """Logits next to zero, denormal in float32 under one model: every token that can occur is as likely."""
    a, b = _random(g, 1.0), _random(g, 1e-44)
    a = a.sign() * (1e-37 + 1e-37 * a.abs())  # not denormal in bf16, which Triton's interpreter rounds to zero
    return _masked(a, _masks()), _masked(b, _masks())


def one_largest(g):
    """One token at the largest logits has all of the mass; the others are anywhere below."""
    a = _random(g, 1.0)
    a[:, ::3] *= 1e30
    a[:, 1::3] -= LARGEST
    b = a + _random(g, 1.0)
    best = _masks().int().argmax(1)[:, None]  # the first token that can occur
    return tuple(_masked(z.scatter(1, best, LARGEST), _masks()) for z in (a, b))


def tied_largest(g):
    """25 tied tokens at the largest logits; what is left lies at zero, or as far below."""
    a = torch.where(torch.rand(ROWS, V, generator=g) < 0.5, 0.0, -LARGEST)
    b = torch.where(torch.rand(ROWS, V, generator=g) < 0.5, 0.0, -LARGEST)
    order = torch.where(_masks(), torch.rand(ROWS, V, generator=g), 2.0).argsort(1)[:, :25]
    return tuple(_masked(z.scatter(1, order, LARGEST), _masks()) for z in (a, b))


def all_smallest(g):
    """Every token that can occur is tied at the smallest logits."""
    a = torch.full((ROWS, V), -LARGEST)
    return _masked(a, _masks()), _masked(a.clone(), _masks())
