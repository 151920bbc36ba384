"""What the positions say together: means by class and by label, with intervals clustered by trace.

Positions of one trace are not independent, so the bootstrap draws traces. Every number is a ratio of two sums over
positions; a resample needs only each trace's sums, never the positions again.

Shape legend: N positions, G traces, S sets of positions, Q those and the sets of each label, W sums of a set,
R resamples.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .position_classes import POSITION_CLASSES

RESAMPLES = 2000
LOCK_KINDS = ("strict", "swap", "self_correction")
MEANS = (
    "kl_ab",
    "js",
    "delta_top1",
    "delta_at_a_top1",
    "delta_nucleus",
    "delta_tail",
    "delta_entropy",
    "ssd_alignment",
)

# Sets of positions: the first five are described for each label too.
_SETS = ("all", *POSITION_CLASSES, *LOCK_KINDS)
_BY_LABEL = 1 + len(POSITION_CLASSES)
# The sums of a set: a count, then a numerator and a denominator for each of MEANS and for ssd_share.
_WIDTH = 1 + 2 * (len(MEANS) + 1)
_SLICE = 100
_COLUMNS = [
    "trace_id", "label", "position_class", "swap", "self_correction",
    "kl_ab", "js", "delta_var", "ssd_push", "ssd_chi2", "ssd_alignment", "b_at_a_top",
    "a_top_logprobs", "b_top_logprobs", "a_nucleus_size", "b_nucleus_size",
    "a_tail_mass", "b_tail_mass", "a_entropy", "b_entropy",
]  # fmt: skip


def summarize(directory: Path, seed: int) -> dict[str, Any]:
    """The numbers of summary.json from `directory/part-*.parquet`; strict JSON values, None where undefined.

    A set of positions has its count, its share of all valid positions, and for each of MEANS and for `ssd_share` a mean
    with a 95 % percentile interval from RESAMPLES bootstrap resamples of whole traces. ``delta_x`` is trained minus
    baseline. Positions with NaN in the pair columns are left out and counted as invalid.
    """
    labels_G: list[str] = []
    sums: list[np.ndarray] = []
    invalid = 0
    for file in sorted(directory.glob("part-*.parquet")):
        part_labels, part_sums, part_invalid = _sums_by_trace(pq.read_table(file, columns=_COLUMNS))
        labels_G += part_labels
        sums.append(part_sums)
        invalid += part_invalid
    sums_GSW = np.concatenate(sums)
    labels = list(dict.fromkeys(labels_G))
    # Each trace has one label, so a label's sums are those of its own traces.
    mine_LG = np.array([[mine == label for mine in labels_G] for label in labels])
    by_label = [np.where(mine_G[:, None, None], sums_GSW[:, :_BY_LABEL], 0.0) for mine_G in mine_LG]
    sums_GQW = np.concatenate([sums_GSW, *by_label], 1)
    names = [(None, kind) for kind in _SETS] + [(label, kind) for label in labels for kind in _SETS[:_BY_LABEL]]
    estimate_QW, resampled_RQW = sums_GQW.sum(0), _bootstrap(sums_GQW, seed)
    total = estimate_QW[0, 0]
    described = {name: _describe(estimate_QW[q], resampled_RQW[:, q], total) for q, name in enumerate(names)}
    return {
        "positions": int(total),
        "traces": len(labels_G),
        "invalid": invalid,
        "labels": {label: described[label, "all"]["positions"] for label in labels},
        "all": described[None, "all"],
        "by_class": {kind: described[None, kind] for kind in POSITION_CLASSES},
        "locks": {kind: described[None, kind] for kind in LOCK_KINDS},
        "by_label": {
            label: {
                "all": described[label, "all"],
                "by_class": {kind: described[label, kind] for kind in POSITION_CLASSES},
            }
            for label in labels
        },
    }


def _sums_by_trace(table: pa.Table) -> tuple[list[str], np.ndarray, int]:
    """(label of each trace, its sums [G, S, W], invalid positions left out). A part holds whole traces."""
    columns = {name: _numpy(table[name].combine_chunks()) for name in _COLUMNS}
    keys = list(zip(columns["label"].tolist(), columns["trace_id"].tolist(), strict=True))
    place = {key: g for g, key in enumerate(dict.fromkeys(keys))}
    trace_N = np.array([place[key] for key in keys], dtype=np.int64)
    valid_N = ~np.isnan(columns["kl_ab"])
    values_NW = _values(columns)
    sums_GSW = np.zeros((len(place), len(_SETS), _WIDTH))
    for s, kind in enumerate(_SETS):
        inside_N = valid_N & _inside(columns, kind)
        np.add.at(sums_GSW[:, s], trace_N[inside_N], values_NW[inside_N])
    return [label for label, _ in place], sums_GSW, int((~valid_N).sum())


def _inside(columns: dict[str, np.ndarray], kind: str) -> np.ndarray:
    if kind == "all":
        return np.ones(len(columns["label"]), dtype=bool)
    if kind in POSITION_CLASSES:
        return columns["position_class"] == kind
    in_kind = {"strict": ~columns["swap"], "swap": columns["swap"], "self_correction": columns["self_correction"]}[kind]
    return (columns["position_class"] == "lock") & in_kind


def _values(columns: dict[str, np.ndarray]) -> np.ndarray:
    """[N, W] in the order of the sums; a term that is undefined at a position counts in neither of its sums."""
    c = columns
    one_N = np.ones(len(c["label"]))
    top1_a, top1_b = np.exp(c["a_top_logprobs"][:, 0]), np.exp(c["b_top_logprobs"][:, 0])
    terms = {
        "kl_ab": c["kl_ab"],
        "js": c["js"],
        "delta_top1": top1_b - top1_a,
        "delta_at_a_top1": np.exp(c["b_at_a_top"][:, 0]) - top1_a,
        "delta_nucleus": c["b_nucleus_size"] - c["a_nucleus_size"],
        "delta_tail": c["b_tail_mass"] - c["a_tail_mass"],
        "delta_entropy": c["b_entropy"] - c["a_entropy"],
        "ssd_alignment": c["ssd_alignment"],
    }
    # SSD asks for nothing where chi2 is 0, and its share of the movement there is undefined.
    asked_N = np.where(c["ssd_chi2"] > 0, c["ssd_chi2"], np.nan)
    ratios = [*((terms[name], one_N) for name in MEANS), (c["ssd_push"] ** 2 / asked_N, c["delta_var"])]
    values_WN = [one_N]
    for over_N, under_N in ratios:
        defined_N = ~(np.isnan(over_N) | np.isnan(under_N))
        values_WN += [np.where(defined_N, over_N, 0.0), np.where(defined_N, under_N, 0.0)]
    return np.stack(values_WN, 1)


def _bootstrap(sums_GQW: np.ndarray, seed: int) -> np.ndarray:
    """[R, Q, W]: the sums over as many traces as there are, drawn with replacement."""
    rng = np.random.default_rng(seed)
    traces = len(sums_GQW)
    flat_GX = sums_GQW.reshape(traces, -1)
    even_G = np.full(traces, 1 / traces)
    slices = []
    for _ in range(RESAMPLES // _SLICE):  # the counts [R, G] of a large run would fill memory
        counts_RG = rng.multinomial(traces, even_G, size=_SLICE).astype(float)
        with np.errstate(invalid="ignore"):  # an infinite KL that was not drawn
            slices.append(counts_RG @ flat_GX)
    return np.concatenate(slices).reshape(RESAMPLES, *sums_GQW.shape[1:])


def _describe(sums_W: np.ndarray, resampled_RW: np.ndarray, total: float) -> dict[str, Any]:
    described: dict[str, Any] = {"positions": int(sums_W[0]), "share": float(sums_W[0] / total) if total else None}
    for i, name in enumerate((*MEANS, "ssd_share")):
        over, under = 1 + 2 * i, 2 + 2 * i
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = sums_W[over] / sums_W[under]
            ratio_R = resampled_RW[:, over] / resampled_RW[:, under]
        ratio_R = ratio_R[np.isfinite(ratio_R)]  # a resample may miss a rare class altogether
        if np.isfinite(mean) and len(ratio_R):
            low, high = np.percentile(ratio_R, [2.5, 97.5])
            described[name] = {"mean": float(mean), "low": float(low), "high": float(high)}
        else:
            described[name] = {"mean": None, "low": None, "high": None}
    return described


def _numpy(column: pa.Array) -> np.ndarray:
    """[N] or [N, w]; numbers in float64, so that sums of many are right."""
    if pa.types.is_fixed_size_list(column.type):
        return column.flatten().to_numpy().reshape(len(column), -1).astype(float)
    values: np.ndarray = column.to_numpy(zero_copy_only=False)
    return values.astype(float) if values.dtype.kind in "fi" else values
