"""The metrics of a position, as ratios of two sums: only sums of traces are stored, never the positions.

Shape legend: N positions, T traces, G groups, W sums of a group (a numerator and a denominator of each metric),
K entries of the top lists.
"""

from __future__ import annotations

import numpy as np

from ..config import SamplingParams
from . import position_groups
from .probe_reader import CE_TERMS, Positions
from .target_distribution import target_ratio

METRICS = (
    "kl_trained_base",
    "kl_base_trained",
    "ssd_variance_fraction",
    "ssd_alignment",
    "ssd_strength",
    *CE_TERMS,
    "tempering",
    "eos_bias",
)
"""kl_trained_base, kl_base_trained: KL(trained ‖ baseline) and KL(baseline ‖ trained), nats per position.
ssd_variance_fraction: Σ ssd_cov² / ssd_var over Σ logratio_var. ssd_alignment: its mean over positions. ssd_strength:
Σ (E_trained[q / p_base] - 1) over Σ ssd_var, which is s where the trained model is (1 - s) p_base + s q.
ce_compression, ce_reshaping, ce_alignment: terms of the loss, trained minus baseline, nats. tempering:
E_trained[log p_base] - E_base[log p_base], nats; above 0 where mass shifts to what the baseline finds likely. eos_bias:
probability of ending the text or the thinking, trained minus baseline."""
POSITIONS = 2 * len(METRICS)
"""index of the count of positions among the sums of a group"""


def sums_by_trace(
    positions: Positions, train_sampling: SamplingParams, token_classes: tuple[str, ...]
) -> tuple[np.ndarray, int]:
    """(float64 [T, G, W + 1], number of invalid positions). The last sum counts; invalid positions are left out.

    A metric that is undefined at a position is left out of both of its sums.
    """
    values_WN = np.stack(_values(positions, train_sampling))
    valid_N = ~np.isnan(positions.columns["kl_trained_base"])
    traces = len(positions.traces)
    sums = [
        np.stack(
            [
                np.bincount(positions.trace_N[mask_N & valid_N], value_N[mask_N & valid_N], traces)
                for value_N in values_WN
            ],
            1,
        )
        if mask_N.any()
        else np.zeros((traces, len(values_WN)))
        for mask_N in position_groups.masks(positions, token_classes)
    ]
    return np.stack(sums, 1), int((~valid_N).sum())


def ratios(sums_W: np.ndarray) -> np.ndarray:
    """The metrics [..., len(METRICS)] of sums [..., W + 1]; NaN where undefined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        values: np.ndarray = sums_W[..., :POSITIONS:2] / sums_W[..., 1:POSITIONS:2]
    return values


@np.errstate(divide="ignore", invalid="ignore")
def _values(positions: Positions, train_sampling: SamplingParams) -> list[np.ndarray]:
    columns = positions.columns
    ones_N = np.ones(len(positions.trace_N))
    ssd_var_N = np.where(columns["ssd_var"] > 0, columns["ssd_var"], np.nan)
    ratio_NK = target_ratio(
        positions.base_logp_NK, train_sampling.temperature, train_sampling.top_k, train_sampling.top_p
    )
    # E_trained[q / p_base] - 1: tokens outside the support contribute -1 each, and so do those that are not listed.
    p_NK = np.exp(positions.trained_logp_NK)
    strength_N = (p_NK * (ratio_NK - 1)).sum(1) - np.maximum(1 - p_NK.sum(1), 0)
    terms = {
        "kl_trained_base": (columns["kl_trained_base"], ones_N),
        "kl_base_trained": (columns["kl_base_trained"], ones_N),
        "ssd_variance_fraction": (columns["ssd_cov"] ** 2 / ssd_var_N, columns["logratio_var"]),
        "ssd_alignment": (columns["ssd_alignment"], ones_N),
        "ssd_strength": (strength_N, ssd_var_N),
        **{name: (columns[f"trained_{name}"] - columns[f"base_{name}"], ones_N) for name in CE_TERMS},
        "tempering": (columns["base_entropy"] - columns["trained_entropy"] - columns["kl_trained_base"], ones_N),
        "eos_bias": (positions.eos_mass_N2[:, 1] - positions.eos_mass_N2[:, 0], ones_N),
    }
    values = []
    for name in METRICS:
        numerator_N, denominator_N = terms[name]
        defined_N = ~(np.isnan(numerator_N) | np.isnan(denominator_N))
        values += [np.where(defined_N, numerator_N, 0.0), np.where(defined_N, denominator_N, 0.0)]
    return [*values, ones_N]
