"""The table of hard cases as hidden states and heads whose products are exactly its logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from ssdfast.kernels import LmHead, ProbeSpec, ProbeStats, probe_stats
from ssdfast.kernels.probe_stats.schema import new_packed, put_rows, unpack

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
    groups += [rows for rows in (~alone).nonzero()[:, 0].split(HIDDEN) if len(rows)]
    stats = unpack(*new_packed(torch.empty(0), len(token), spec, b is not None), len(token), spec, b is not None)
    for rows in groups or [torch.arange(0)]:
        factors_b = (None, None) if b is None else exact_factors(b[rows])
        put_rows(stats, rows, linear(*exact_factors(a[rows]), *factors_b, token[rows], spec))
    return stats


def float64_logits(hidden_NH: Tensor, head: LmHead) -> Tensor:
    bias_V = None if head.bias_V is None else head.bias_V.double().cpu()
    exact = LmHead(head.weight_VH, bias_V, head.scale, head.softcap)
    return exact.finish_(hidden_NH.double().cpu() @ head.weight_VH.double().cpu().T)


def assert_near_products(got: ProbeStats, logits: list[Tensor], token: Tensor, spec: ProbeSpec) -> None:
    """Against the oracle on float64 logits of both models, which differ from float32's by rounding. Integers are exact,
    but for a nucleus that ends within 1e-5 of its mass."""
    want = probe_stats(*logits, token, spec, backend="reference")
    p = spec.eval_sampling.top_p
    low, high = (
        probe_stats(
            *logits, token, dataclasses.replace(spec, eval_sampling=dataclasses.replace(spec.eval_sampling, top_p=q))
        )
        for q in (p - 1e-5, min(1.0, p + 1e-5))
    )
    for group in ("base", "trained", "pair"):
        for name, oracle in vars(getattr(want, group)).items():
            actual = getattr(getattr(got, group), name)
            if name == "nucleus_size":
                assert (getattr(low, group).nucleus_size <= actual).all(), f"{group}.{name}"
                assert (actual <= getattr(high, group).nucleus_size).all(), f"{group}.{name}"
            elif oracle.is_floating_point():
                torch.testing.assert_close(
                    actual.double(), oracle, rtol=1e-4, atol=5e-5, equal_nan=True, msg=f"{group}.{name}"
                )
            else:
                assert torch.equal(actual, oracle), f"{group}.{name}"
