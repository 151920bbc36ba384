"""The effect of the shift under decoding (temperature, top-k, top-p): the data of four figures, for both models.

Cumulative mass by rank; tokens that survive truncation, and the entropy left among them, against the sampling
temperature; that entropy by how much mass the top list holds.

Shape legend: N positions, T traces, K entries of the top lists, E temperatures, B bins, X values of a position.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..sampling_distribution import truncated_distribution
from ..sharded_table import trace_starts
from .estimates import Interval, intervals, ratio_estimates, variance
from .probe_reader import Probe, list_values

TEMPERATURES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.5, 1.7, 2.0)
TOP_MASS_EDGES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0)
_MODELS = {"baseline": "base_top_logprobs", "trained": "trained_top_logprobs"}


def decoding_curves(directory: Path) -> dict[str, Any]:
    """Of a finished probe, with top_k and top_p of its `eval_sampling` (top-k the whole list where it is off). Strict
    JSON.

    `baseline` and `trained` each: `cumulative_mass` (a list over ranks), `surviving_tokens` and `entropy` (over
    `temperatures`, nats), `entropy_by_top_mass` (over bins of `top_mass_edges`, at the temperature of `eval_sampling`,
    with the fraction of positions of each bin); every value is a mean over positions with a 95 % interval over traces.
    Raises ValueError for a probe that is unfinished or of another version.
    """
    probe = Probe.open(directory)
    sampling = probe.settings.eval_sampling
    top_logprobs = probe.settings.top_logprobs
    top_k = sampling.top_k or top_logprobs
    curves: dict[str, Any] = {
        "temperatures": list(TEMPERATURES),
        "top_mass_edges": list(TOP_MASS_EDGES),
        "truncation": {"top_k": top_k, "top_p": sampling.top_p},
    }
    sums: dict[str, list[np.ndarray]] = {model: [] for model in _MODELS}
    for table in probe.tables(["trace_source", "trace_id", *_MODELS.values()]):
        starts_T = trace_starts(table)
        for model, column in _MODELS.items():
            values_NX = _values(list_values(table[column]), sampling.temperature, top_k, sampling.top_p)
            sums[model].append(np.add.reduceat(values_NX, starts_T, axis=0))
    for model, pieces in sums.items():
        if pieces:
            sums_TX = np.concatenate(pieces)
            curves[model] = _describe(sums_TX, top_logprobs)
        else:
            curves[model] = None
    return curves


def _values(logp_NK: np.ndarray, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """[N, X]: 1, then what the curves average, then for each bin whether a position is in it and its entropy there.

    All 0 at a position without finite logits.
    """
    valid_N1 = ~np.isnan(logp_NK[:, :1])
    logp_NK = np.where(valid_N1, logp_NK, 0.0)
    mass_NK = np.cumsum(np.exp(logp_NK), 1)
    truncated = [truncated_distribution(logp_NK, t, top_k, top_p) for t in TEMPERATURES]
    entropy_N = _entropy(truncated_distribution(logp_NK, temperature, top_k, top_p))
    bins = len(TOP_MASS_EDGES) - 1
    bin_N = np.clip(np.searchsorted(TOP_MASS_EDGES, mass_NK[:, -1], side="right") - 1, 0, bins - 1)
    in_bin_NB = bin_N[:, None] == np.arange(bins)
    values_NX = np.concatenate(
        [
            np.ones((len(logp_NK), 1)),
            mass_NK,
            np.stack([(q_NK > 0).sum(1) for q_NK in truncated], 1),
            np.stack([_entropy(q_NK) for q_NK in truncated], 1),
            in_bin_NB,
            in_bin_NB * entropy_N[:, None],
        ],
        1,
    )
    valid_NX: np.ndarray = np.where(valid_N1, values_NX, 0.0)
    return valid_NX


def _entropy(q_NK: np.ndarray) -> np.ndarray:
    entropy_N: np.ndarray = -(q_NK * np.log(np.where(q_NK > 0, q_NK, 1.0))).sum(1)
    return entropy_N


@np.errstate(divide="ignore", invalid="ignore")
def _describe(sums_TX: np.ndarray, top_logprobs: int) -> dict[str, Any]:
    bounds = np.cumsum([1, top_logprobs, len(TEMPERATURES), len(TEMPERATURES), len(TOP_MASS_EDGES) - 1])
    count, mass, tokens, entropy, in_bin, bin_entropy = np.split(sums_TX, bounds, axis=1)

    def means(numerator: np.ndarray, denominator: np.ndarray) -> list[Interval]:
        pairs = np.stack([numerator, np.broadcast_to(denominator, numerator.shape)], 2)
        estimates = ratio_estimates(pairs.reshape(len(pairs), -1))
        return intervals(estimates.value_X, variance([estimates]))

    return {
        "cumulative_mass": means(mass, count),
        "surviving_tokens": means(tokens, count),
        "entropy": means(entropy, count),
        "entropy_by_top_mass": [
            entry | {"position_fraction": float(fraction) if np.isfinite(fraction) else None}
            for entry, fraction in zip(means(bin_entropy, in_bin), in_bin.sum(0) / count.sum(), strict=True)
        ],
    }
