"""The data of four figures of what decoding sees, for the baseline and for a trained model.

Cumulative mass by rank; tokens that survive truncation, and the entropy left among them, against the temperature of
decoding; that entropy by how much mass the top list holds.

Shape legend: N positions, T traces, K entries of the top lists, E temperatures, B bins, X values of a position, R
resamples.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..sharded_table import trace_starts
from .probe_reader import Probe, lists
from .resampling import interval, resampled
from .target_distribution import decoded

TEMPERATURES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.5, 1.7, 2.0)
TOP_MASS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0)
"""edges of the bins of mass"""
_COLUMNS = ["label", "trace_id", "a_top_logprobs", "b_top_logprobs"]


def panels(directory: Path, seed: int = 0) -> dict[str, Any]:
    """Of a finished probe, with its `decoding.top_k` and `top_p` (top-k the whole list where it is off). Strict JSON.

    `baseline` and `trained` each: `cumulative_mass` (a list over ranks), `surviving_tokens` and `entropy` (over
    `temperatures`, nats), `entropy_by_top_mass` (over bins of `top_mass_edges`, at decoding.temperature, with the share
    of positions of each bin); of everything a mean over positions and a 95 % interval from drawing traces.
    Raises ValueError for a probe that is unfinished or that an older version wrote.
    """
    probe = Probe.of(directory)
    decoding = probe.settings["decoding"]
    k = decoding["top_k"] or probe.settings["top"]
    found: dict[str, Any] = {
        "temperatures": list(TEMPERATURES),
        "top_mass_edges": list(TOP_MASS),
        "truncation": {"top_k": k, "top_p": decoding["top_p"]},
    }
    sums: dict[str, list[np.ndarray]] = {"a": [], "b": []}
    for table in probe.tables(_COLUMNS):
        starts_T = trace_starts(table)
        for side, traces in sums.items():
            values_NX = _values(lists(table[f"{side}_top_logprobs"]), decoding["temperature"], k, decoding["top_p"])
            traces.append(np.add.reduceat(values_NX, starts_T, axis=0))
    for side, name in (("a", "baseline"), ("b", "trained")):
        if sums[side]:
            whole_TX = np.concatenate(sums[side])
            resampled_RX = resampled(whole_TX, np.random.default_rng(seed))
            found[name] = _described(whole_TX.sum(0), resampled_RX, probe.settings["top"])
        else:
            found[name] = None
    return found


def _values(logp_NK: np.ndarray, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """[N, X]: 1, then what the panels average, then for each bin whether a position is in it and its entropy there.

    All 0 at a position without finite logits.
    """
    valid_N1 = ~np.isnan(logp_NK[:, :1])
    logp_NK = np.where(valid_N1, logp_NK, 0.0)
    mass_NK = np.cumsum(np.exp(logp_NK), 1)
    at = [decoded(logp_NK, t, top_k, top_p) for t in TEMPERATURES]
    entropy_N = _entropy(decoded(logp_NK, temperature, top_k, top_p))
    bin_N = np.clip(np.searchsorted(TOP_MASS, mass_NK[:, -1], side="right") - 1, 0, len(TOP_MASS) - 2)
    inside_NB = bin_N[:, None] == np.arange(len(TOP_MASS) - 1)
    values_NX = np.concatenate(
        [
            np.ones((len(logp_NK), 1)),
            mass_NK,
            np.stack([(q_NK > 0).sum(1) for q_NK in at], 1),
            np.stack([_entropy(q_NK) for q_NK in at], 1),
            inside_NB,
            inside_NB * entropy_N[:, None],
        ],
        1,
    )
    found: np.ndarray = np.where(valid_N1, values_NX, 0.0)
    return found


def _entropy(q_NK: np.ndarray) -> np.ndarray:
    found: np.ndarray = -(q_NK * np.log(np.where(q_NK > 0, q_NK, 1.0))).sum(1)
    return found


@np.errstate(divide="ignore", invalid="ignore")
def _described(sums_X: np.ndarray, sums_RX: np.ndarray, top: int) -> dict[str, Any]:
    cuts = np.cumsum([1, top, len(TEMPERATURES), len(TEMPERATURES), len(TOP_MASS) - 1])
    count, mass, tokens, entropy, inside, within = np.split(sums_X, cuts)
    count_R, mass_R, tokens_R, entropy_R, inside_R, within_R = np.split(sums_RX, cuts, axis=1)

    def means(over: np.ndarray, under: np.ndarray, over_R: np.ndarray, under_R: np.ndarray) -> list[dict[str, Any]]:
        value, value_R = over / under, over_R / under_R
        return [interval(float(value[i]), value_R[:, i]) for i in range(len(value))]

    by_mass = means(within, inside, within_R, inside_R)
    return {
        "cumulative_mass": means(mass, count, mass_R, count_R),
        "surviving_tokens": means(tokens, count, tokens_R, count_R),
        "entropy": means(entropy, count, entropy_R, count_R),
        "entropy_by_top_mass": [
            one | {"share": float(share) if np.isfinite(share) else None}
            for one, share in zip(by_mass, inside / count, strict=True)
        ],
    }
