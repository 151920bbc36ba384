"""The table of hard cases as hidden states and heads whose products are exactly its logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ssdfast.kernels import ProbeSpec, ProbeStats
from ssdfast.kernels.probe_stats.schema import concatenate, unpack

HIDDEN = 64


def exact_factors(logits_NV: Tensor, hidden_size: int = HIDDEN) -> tuple[Tensor, Tensor]:
    """hidden [N, H] of unit vectors and weight [V, H], N <= H, so that the product is ``logits_NV`` to the last bit."""
    n, v = logits_NV.shape
    hidden_NH = torch.eye(n, hidden_size).to(logits_NV.dtype)
    weight_VH = torch.zeros(v, hidden_size, dtype=logits_NV.dtype)
    weight_VH[:, :n] = logits_NV.T
    return hidden_NH, weight_VH


def by_rows(
    linear: Callable[..., ProbeStats], a: Tensor, b: Tensor | None, token: Tensor, spec: ProbeSpec
) -> ProbeStats:
    """``linear(hidden_a, weight_a, hidden_b, weight_b, token, spec)`` on the factors of a case.

    A logit that is not finite would make NaN of every other row's product, so such rows have a head of their own.
    """
    both = a if b is None else torch.cat([a, b], 1)
    alone = (~both.isfinite()).any(1)
    groups = [torch.tensor([i]) for i in alone.nonzero()[:, 0].tolist()]
    groups += list((~alone).nonzero()[:, 0].split(HIDDEN)) if len(token) else [torch.arange(0)]
    parts, order = [], torch.cat(groups)
    for rows in groups:
        if len(rows) == 0 and len(token):
            continue
        factors_b = (None, None) if b is None else exact_factors(b[rows])
        parts.append(linear(*exact_factors(a[rows]), *factors_b, token[rows], spec))
    joined = unpack(*concatenate(parts, spec), len(token), spec, b is not None)
    back = order.argsort()
    groups_of = (
        g and type(g)(**{name: column[back] for name, column in vars(g).items()}) for g in vars(joined).values()
    )
    return ProbeStats(*groups_of)
