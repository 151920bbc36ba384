"""Means over positions, by position class and by trace source, with intervals clustered by trace.

Positions of one trace are not independent, so the bootstrap draws traces. Every number is a ratio of two sums over
positions; a resample needs only each trace's sums, never the positions again. The positions are read once, a batch at a
time; what stays in memory is 1 kB per trace.

Shape legend: N positions of a batch, T traces that begin or continue in it, G traces of a source, L trace sources,
C cells, W sums of a cell, R resamples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ..joined_shard import Shard
from ..sharded_table import trace_starts
from ..statistics import bootstrap_sums
from .position_classes import LOCK, POSITION_CLASSES

RESAMPLES = 2000
LOCK_KINDS = ("strict", "top1_changed", "self_correction")
MEANS = (
    "kl_trained_base",
    "kl_base_trained",
    "js",
    "delta_top1_prob",
    "delta_prob_at_base_top1",
    "delta_nucleus_size",
    "delta_tail_mass",
    "delta_entropy",
    "ssd_alignment",
)

# A position is in one cell: 0 to 3 are locks (1 for a changed top-1 token, 2 for a self-correction), then one for each
# other class.
_CELLS = 4 + len(POSITION_CLASSES) - 1
# The cells of every group of positions.
_GROUPS = {
    "all": list(range(_CELLS)),
    **{name: [3 + code] if code != LOCK else [0, 1, 2, 3] for code, name in enumerate(POSITION_CLASSES)},
    "strict": [0, 2],
    "top1_changed": [1, 3],
    "self_correction": [2, 3],
}
# The sums of a cell: a count, then a numerator and a denominator for each of MEANS and for ssd_variance_fraction.
_WIDTH = 1 + 2 * (len(MEANS) + 1)
_BATCH = 32_768  # positions
_NUMBERS = [
    "kl_trained_base", "kl_base_trained", "js", "logratio_var", "ssd_cov", "ssd_var", "ssd_alignment",
    "base_top1_logprob", "trained_top1_logprob", "trained_logprob_at_base_top1", "base_nucleus_size",
    "trained_nucleus_size", "base_tail_mass", "trained_tail_mass", "base_entropy", "trained_entropy",
]  # fmt: skip
_COLUMNS = ["trace_id", "trace_source", "position_class", "top1_changed", "self_correction", *_NUMBERS]


@np.errstate(divide="ignore", invalid="ignore")  # an infinite KL, drawn or not, and empty groups end as None
def summarize(shards: Iterable[Shard], trace_sources: Sequence[str], seed: int) -> dict[str, Any]:
    """The numbers of summary.json from the shards of a probe; strict JSON values, None where undefined.

    shards: each holds whole traces, the rows of a trace together. trace_sources: their names, in the order of the
    summary; one without a position is summarized too.

    An entry for a group of positions has their count, their fraction of all valid positions, and for each of MEANS and
    for `ssd_variance_fraction` a mean with a 95 % percentile interval from RESAMPLES bootstrap resamples of whole
    traces. ``delta_x`` is trained minus baseline. Positions with NaN in the pair columns are left out and counted as
    invalid. Raises ValueError for a trace of another source.
    """
    trace_sources = list(dict.fromkeys(trace_sources))
    sums, invalid = _sums_by_trace(shards, trace_sources)
    estimate_LCW = np.stack([sums_GCW.sum(0) for sums_GCW in sums])
    resampled_RLCW = _bootstrap(sums, seed)
    total = estimate_LCW[..., 0].sum()

    def describe(group: str, sources: slice = slice(None)) -> dict[str, Any]:
        cells = _GROUPS[group]
        sums_W, resampled_RW = estimate_LCW[sources, cells].sum((0, 1)), resampled_RLCW[:, sources, cells].sum((1, 2))
        return _describe(sums_W, resampled_RW, total)

    by_trace_source = {
        source: {
            "all": describe("all", slice(i, i + 1)),
            "by_position_class": {name: describe(name, slice(i, i + 1)) for name in POSITION_CLASSES},
        }
        for i, source in enumerate(trace_sources)
    }
    return {
        "positions": int(total),
        "traces": sum(map(len, sums)),
        "invalid": invalid,
        "trace_sources": {source: entry["all"]["positions"] for source, entry in by_trace_source.items()},
        "all": describe("all"),
        "by_position_class": {name: describe(name) for name in POSITION_CLASSES},
        "by_lock_kind": {kind: describe(kind) for kind in LOCK_KINDS},
        "by_trace_source": by_trace_source,
    }


def _sums_by_trace(shards: Iterable[Shard], trace_sources: list[str]) -> tuple[list[np.ndarray], int]:
    """(for each source the sums [G, C, W] of its traces, the number of invalid positions, which are left out)."""
    sums: dict[str, list[np.ndarray]] = {source: [np.empty((0, _CELLS, _WIDTH))] for source in trace_sources}
    invalid = 0
    for shard in shards:
        last = None
        for batch in shard.iter_batches(_BATCH, columns=_COLUMNS):
            starts_T, traces = _traces(batch)
            sums_TCW, batch_invalid = _sums(batch, starts_T)
            invalid += batch_invalid
            if traces[:1] == [last]:  # it began in an earlier batch
                sums[traces[0][0]][-1][-1] += sums_TCW[0]
                traces, sums_TCW = traces[1:], sums_TCW[1:]
            for source, trace_id in traces:
                if source not in sums:
                    raise ValueError(
                        f"the table holds trace {trace_id!r} of {source!r}, this probe has {', '.join(trace_sources)}:"
                        " remove the shards of the other probe"
                    )
            source_T = np.array([source for source, _ in traces])
            for source in set(source_T.tolist()):
                sums[source].append(sums_TCW[source_T == source])
            last = traces[-1] if traces else last
    return [np.concatenate(sums.pop(source)) for source in trace_sources], invalid


def _traces(batch: pa.RecordBatch) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """(first rows [T] of the traces in a batch, their sources and ids)."""
    starts_T = trace_starts(batch)
    source, trace_id = (batch[name].take(starts_T).to_pylist() for name in ("trace_source", "trace_id"))
    return starts_T, list(zip(source, trace_id, strict=True))


def _sums(batch: pa.RecordBatch, starts_T: np.ndarray) -> tuple[np.ndarray, int]:
    """(sums [T, C, W] of each trace's rows in a batch, the number of invalid positions, which are left out)."""
    columns = {name: batch[name].to_numpy().astype(float) for name in _NUMBERS}
    traces = len(starts_T)
    trace_N = np.repeat(np.arange(traces), np.diff(starts_T, append=len(batch)))
    invalid_N = np.isnan(columns["kl_base_trained"])
    place_N = np.where(invalid_N, traces * _CELLS, trace_N * _CELLS + _cells(batch))
    sums_WX = np.stack([np.bincount(place_N, value_N, traces * _CELLS + 1) for value_N in _values(columns)])
    return np.moveaxis(sums_WX[:, :-1].reshape(_WIDTH, traces, _CELLS), 0, -1), int(invalid_N.sum())


def _cells(batch: pa.RecordBatch) -> np.ndarray:
    """int64 [N]: the cell of each position."""
    column = batch["position_class"]
    codes = np.array([POSITION_CLASSES.index(name) for name in column.dictionary.to_pylist()], np.int64)
    code_N = codes[column.indices.to_numpy()]
    changed_N, correction_N = (
        batch[name].to_numpy(zero_copy_only=False) for name in ("top1_changed", "self_correction")
    )
    cell_N: np.ndarray = np.where(code_N == LOCK, changed_N + 2 * correction_N, 3 + code_N)
    return cell_N


def _values(c: dict[str, np.ndarray]) -> Iterator[np.ndarray]:
    """[N] for each of the W sums, in their order; a term undefined at a position counts in neither of its sums."""
    ones_N = np.ones(len(c["kl_base_trained"]))
    base_top1_N = np.exp(c["base_top1_logprob"])
    terms = {
        "kl_trained_base": c["kl_trained_base"],
        "kl_base_trained": c["kl_base_trained"],
        "js": c["js"],
        "delta_top1_prob": np.exp(c["trained_top1_logprob"]) - base_top1_N,
        "delta_prob_at_base_top1": np.exp(c["trained_logprob_at_base_top1"]) - base_top1_N,
        "delta_nucleus_size": c["trained_nucleus_size"] - c["base_nucleus_size"],
        "delta_tail_mass": c["trained_tail_mass"] - c["base_tail_mass"],
        "delta_entropy": c["trained_entropy"] - c["base_entropy"],
        "ssd_alignment": c["ssd_alignment"],
    }
    # Self-distillation predicts no direction where ssd_var is 0, so its fraction of the variance is undefined there.
    ssd_var_N = np.where(c["ssd_var"] > 0, c["ssd_var"], np.nan)
    ratios = [*((terms[name], ones_N) for name in MEANS), (c["ssd_cov"] ** 2 / ssd_var_N, c["logratio_var"])]
    yield ones_N
    for numerator_N, denominator_N in ratios:
        defined_N = ~(np.isnan(numerator_N) | np.isnan(denominator_N))
        yield np.where(defined_N, numerator_N, 0.0)
        yield np.where(defined_N, denominator_N, 0.0)


def _bootstrap(sums: list[np.ndarray], seed: int) -> np.ndarray:
    """[R, L, C, W]: the sums over resamples of the traces of all sources."""
    flat = [sums_GCW.reshape(len(sums_GCW), _CELLS * _WIDTH) for sums_GCW in sums]
    resampled = bootstrap_sums(flat, RESAMPLES, np.random.default_rng(seed))
    return resampled.reshape(RESAMPLES, len(sums), _CELLS, _WIDTH)


def _describe(sums_W: np.ndarray, resampled_RW: np.ndarray, total: float) -> dict[str, Any]:
    fraction = float(sums_W[0] / total) if total else None
    entry: dict[str, Any] = {"positions": int(sums_W[0]), "position_fraction": fraction}
    for i, name in enumerate((*MEANS, "ssd_variance_fraction")):
        numerator, denominator = 1 + 2 * i, 2 + 2 * i
        value = sums_W[numerator] / sums_W[denominator]
        ratio_R = resampled_RW[:, numerator] / resampled_RW[:, denominator]
        ratio_R = ratio_R[np.isfinite(ratio_R)]  # a resample may miss a rare class altogether
        if np.isfinite(value) and len(ratio_R):
            low, high = np.percentile(ratio_R, [2.5, 97.5])
            entry[name] = {"value": float(value), "ci_low": float(low), "ci_high": float(high)}
        else:
            entry[name] = {"value": None, "ci_low": None, "ci_high": None}
    return entry
