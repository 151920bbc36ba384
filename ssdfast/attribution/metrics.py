"""What is measured at a position, as ratios of two sums: only sums of traces are kept, never the positions.

Shape legend: N positions, T traces, G sets, W sums of a set (a numerator and a denominator of each measure), K entries
of the top lists.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import position_groups
from .probe_reader import TERMS, Positions
from .target_distribution import ratio

MEASURES = ("kl_ba", "kl_ab", "ssd_share", "ssd_alignment", "ssd_strength", *TERMS, "tempering", "ending")
"""kl_ba, kl_ab: KL(trained ‖ baseline) and the reverse, nats a position. ssd_share: Σ push² / chi2 over Σ delta_var.
ssd_alignment: its mean over positions. ssd_strength: Σ (E_b[q/p_a] - 1) over Σ chi2, which is s where the trained model
is (1 - s) p_a + s q. compression, reshaping, head_alignment: terms of the loss, trained less baseline, nats.
tempering: E_b[log p_a] - E_a[log p_a], nats; above 0 where mass went to what the baseline finds likely. ending: gain of
the probability to end the text or the thinking."""
POSITIONS = 2 * len(MEASURES)
"""place of the count of positions among the sums of a set"""


def sums_by_trace(at: Positions, train: dict[str, Any], token_classes: tuple[str, ...]) -> tuple[np.ndarray, int]:
    """(float64 [T, G, W + 1], invalid positions). The last sum counts; invalid positions are left out.

    A measure that is undefined at a position is left out of both of its sums.
    """
    values_WN = np.stack(_values(at, train))
    valid_N = ~np.isnan(at.number["kl_ba"])
    traces = len(at.traces)
    found = [
        np.stack([np.bincount(at.trace_N[mask_N & valid_N], one_N[mask_N & valid_N], traces) for one_N in values_WN], 1)
        if mask_N.any()
        else np.zeros((traces, len(values_WN)))
        for mask_N in position_groups.masks(at, token_classes)
    ]
    return np.stack(found, 1), int((~valid_N).sum())


def ratios(sums_W: np.ndarray) -> np.ndarray:
    """The measures [..., len(MEASURES)] of sums [..., W + 1]; NaN where undefined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found: np.ndarray = sums_W[..., :POSITIONS:2] / sums_W[..., 1:POSITIONS:2]
    return found


@np.errstate(divide="ignore", invalid="ignore")
def _values(at: Positions, train: dict[str, Any]) -> list[np.ndarray]:
    number = at.number
    one_N = np.ones(len(at.trace_N))
    chi2_N = np.where(number["ssd_chi2"] > 0, number["ssd_chi2"], np.nan)
    ratio_NK = ratio(at.logp_a_NK, train["temperature"], train["top_k"], train["top_p"])
    # E_b[q/p_a] - 1, the tokens outside the support among them with -1 each; one that is not listed is one of those.
    p_b_NK = np.exp(at.logp_b_NK)
    strength_N = (p_b_NK * (ratio_NK - 1)).sum(1) - np.maximum(1 - p_b_NK.sum(1), 0)
    terms_N3 = at.terms_N23[:, 1] - at.terms_N23[:, 0]
    terms = {
        "kl_ba": (number["kl_ba"], one_N),
        "kl_ab": (number["kl_ab"], one_N),
        "ssd_share": (number["ssd_push"] ** 2 / chi2_N, number["delta_var"]),
        "ssd_alignment": (number["ssd_alignment"], one_N),
        "ssd_strength": (strength_N, chi2_N),
        **{name: (terms_N3[:, i], one_N) for i, name in enumerate(TERMS)},
        "tempering": (number["a_entropy"] - number["b_entropy"] - number["kl_ba"], one_N),
        "ending": (at.ending_N2[:, 1] - at.ending_N2[:, 0], one_N),
    }
    values = []
    for name in MEASURES:
        over_N, under_N = terms[name]
        defined_N = ~(np.isnan(over_N) | np.isnan(under_N))
        values += [np.where(defined_N, over_N, 0.0), np.where(defined_N, under_N, 0.0)]
    return [*values, one_N]
