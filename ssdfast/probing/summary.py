"""What the positions say together: means by class and by label, with intervals clustered by trace.

Positions of one trace are not independent, so the bootstrap draws traces. Every number is a ratio of two sums over
positions; a resample needs only each trace's sums, never the positions again. The positions are read once, a batch at a
time; what stays in memory is 1 kB a trace.

Shape legend: N positions of a batch, T traces that begin or go on in it, G traces of a label or of a block of them,
L labels, C cells, W sums of a cell, X = C * W, R resamples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..sharded_table import trace_starts
from ..statistics import drawn
from .position_classes import LOCK, POSITION_CLASSES

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

# A position is in one cell: 0 to 3 are locks (1 for a swap, 2 for a self-correction), then one for each other class.
_CELLS = 4 + len(POSITION_CLASSES) - 1
# Every set of positions is some of the cells.
_SETS = {
    "all": list(range(_CELLS)),
    **{name: [3 + code] if code != LOCK else [0, 1, 2, 3] for code, name in enumerate(POSITION_CLASSES)},
    "strict": [0, 2],
    "swap": [1, 3],
    "self_correction": [2, 3],
}
# The sums of a cell: a count, then a numerator and a denominator for each of MEANS and for ssd_share.
_WIDTH = 1 + 2 * (len(MEANS) + 1)
_BATCH = 32_768  # positions
_BLOCK = 512  # traces
_NUMBERS = [
    "kl_ab", "js", "delta_var", "ssd_push", "ssd_chi2", "ssd_alignment",
    "a_top1_logprob", "b_top1_logprob", "b_at_a_top1", "a_nucleus_size", "b_nucleus_size",
    "a_tail_mass", "b_tail_mass", "a_entropy", "b_entropy",
]  # fmt: skip
_COLUMNS = ["trace_id", "label", "position_class", "swap", "self_correction", *_NUMBERS]


@np.errstate(divide="ignore", invalid="ignore")  # an infinite KL, drawn or not, and empty sets end as None
def summarize(parts: Iterable[pq.ParquetFile], labels: Sequence[str], seed: int) -> dict[str, Any]:
    """The numbers of summary.json from the parts of a probe; strict JSON values, None where undefined.

    parts: each holds whole traces, the rows of a trace together. labels: who generated the traces, in the order to
    describe them in; one without a position is described too.

    A set of positions has its count, its share of all valid positions, and for each of MEANS and for `ssd_share` a mean
    with a 95 % percentile interval from RESAMPLES bootstrap resamples of whole traces. ``delta_x`` is trained minus
    baseline. Positions with NaN in the pair columns are left out and counted as invalid. Raises ValueError for a trace
    with another label.
    """
    labels = list(dict.fromkeys(labels))
    sums, invalid = _sums_by_trace(parts, labels)
    estimate_LCW = np.stack([sums_GCW.sum(0) for sums_GCW in sums])
    resampled_RLCW = _bootstrap(sums, seed)
    total = estimate_LCW[..., 0].sum()

    def describe(kind: str, mine: slice = slice(None)) -> dict[str, Any]:
        cells = _SETS[kind]
        sums_W, resampled_RW = estimate_LCW[mine, cells].sum((0, 1)), resampled_RLCW[:, mine, cells].sum((1, 2))
        return _describe(sums_W, resampled_RW, total)

    by_label = {
        label: {
            "all": describe("all", slice(i, i + 1)),
            "by_class": {kind: describe(kind, slice(i, i + 1)) for kind in POSITION_CLASSES},
        }
        for i, label in enumerate(labels)
    }
    return {
        "positions": int(total),
        "traces": sum(map(len, sums)),
        "invalid": invalid,
        "labels": {label: entry["all"]["positions"] for label, entry in by_label.items()},
        "all": describe("all"),
        "by_class": {kind: describe(kind) for kind in POSITION_CLASSES},
        "locks": {kind: describe(kind) for kind in LOCK_KINDS},
        "by_label": by_label,
    }


def _sums_by_trace(parts: Iterable[pq.ParquetFile], labels: list[str]) -> tuple[list[np.ndarray], int]:
    """(for each label the sums [G, C, W] of its traces, invalid positions left out)."""
    found: dict[str, list[np.ndarray]] = {label: [np.empty((0, _CELLS, _WIDTH))] for label in labels}
    invalid = 0
    for part in parts:
        last = None
        for batch in part.iter_batches(_BATCH, columns=_COLUMNS):
            starts_T, traces = _traces(batch)
            sums_TCW, left_out = _sums(batch, starts_T)
            invalid += left_out
            if traces[:1] == [last]:  # it began in an earlier batch
                found[traces[0][0]][-1][-1] += sums_TCW[0]
                traces, sums_TCW = traces[1:], sums_TCW[1:]
            for label, trace_id in traces:
                if label not in found:
                    raise ValueError(
                        f"the parts hold trace {trace_id!r} with label {label!r}, this probe has {', '.join(labels)}:"
                        " take the parts of another probe away"
                    )
            label_T = np.array([label for label, _ in traces])
            for label in set(label_T.tolist()):
                found[label].append(sums_TCW[label_T == label])
            last = traces[-1] if traces else last
    return [np.concatenate(found.pop(label)) for label in labels], invalid


def _traces(batch: pa.RecordBatch) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """(first rows [T] of the traces in a batch, their labels and ids)."""
    starts_T = trace_starts(batch)
    label, trace_id = (batch[name].take(starts_T).to_pylist() for name in ("label", "trace_id"))
    return starts_T, list(zip(label, trace_id, strict=True))


def _sums(batch: pa.RecordBatch, starts_T: np.ndarray) -> tuple[np.ndarray, int]:
    """(sums [T, C, W] of each trace's part of a batch, invalid positions left out)."""
    columns = {name: batch[name].to_numpy().astype(float) for name in _NUMBERS}
    traces = len(starts_T)
    trace_N = np.repeat(np.arange(traces), np.diff(starts_T, append=len(batch)))
    invalid_N = np.isnan(columns["kl_ab"])
    place_N = np.where(invalid_N, traces * _CELLS, trace_N * _CELLS + _cells(batch))
    sums_WX = np.stack([np.bincount(place_N, value_N, traces * _CELLS + 1) for value_N in _values(columns)])
    return np.moveaxis(sums_WX[:, :-1].reshape(_WIDTH, traces, _CELLS), 0, -1), int(invalid_N.sum())


def _cells(batch: pa.RecordBatch) -> np.ndarray:
    """int64 [N]: the cell of each position."""
    kind = batch["position_class"]
    code_of_kind = np.array([POSITION_CLASSES.index(name) for name in kind.dictionary.to_pylist()], np.int64)
    code_N = code_of_kind[kind.indices.to_numpy()]
    swap_N, correction_N = (batch[name].to_numpy(zero_copy_only=False) for name in ("swap", "self_correction"))
    cell_N: np.ndarray = np.where(code_N == LOCK, swap_N + 2 * correction_N, 3 + code_N)
    return cell_N


def _values(c: dict[str, np.ndarray]) -> Iterator[np.ndarray]:
    """[N] for each of the W sums, in their order; a term undefined at a position counts in neither of its sums."""
    one_N = np.ones(len(c["kl_ab"]))
    top1_a_N = np.exp(c["a_top1_logprob"])
    terms = {
        "kl_ab": c["kl_ab"],
        "js": c["js"],
        "delta_top1": np.exp(c["b_top1_logprob"]) - top1_a_N,
        "delta_at_a_top1": np.exp(c["b_at_a_top1"]) - top1_a_N,
        "delta_nucleus": c["b_nucleus_size"] - c["a_nucleus_size"],
        "delta_tail": c["b_tail_mass"] - c["a_tail_mass"],
        "delta_entropy": c["b_entropy"] - c["a_entropy"],
        "ssd_alignment": c["ssd_alignment"],
    }
    # SSD asks for nothing where chi2 is 0, and its share of the movement there is undefined.
    asked_N = np.where(c["ssd_chi2"] > 0, c["ssd_chi2"], np.nan)
    ratios = [*((terms[name], one_N) for name in MEANS), (c["ssd_push"] ** 2 / asked_N, c["delta_var"])]
    yield one_N
    for over_N, under_N in ratios:
        defined_N = ~(np.isnan(over_N) | np.isnan(under_N))
        yield np.where(defined_N, over_N, 0.0)
        yield np.where(defined_N, under_N, 0.0)


def _bootstrap(sums: list[np.ndarray], seed: int) -> np.ndarray:
    """[R, L, C, W]: the sums over as many traces as there are, drawn with replacement from those of all labels."""
    blocks = [
        (i, sums_GCW[start : start + _BLOCK].reshape(-1, _CELLS * _WIDTH))
        for i, sums_GCW in enumerate(sums)
        for start in range(0, len(sums_GCW), _BLOCK)
    ]
    resampled_RLX = np.zeros((RESAMPLES, len(sums), _CELLS * _WIDTH))
    counts = drawn([len(block_GX) for _, block_GX in blocks], RESAMPLES, np.random.default_rng(seed))
    for (i, block_GX), counts_RG in zip(blocks, counts, strict=True):
        resampled_RLX[:, i] += counts_RG.astype(float) @ block_GX
    return resampled_RLX.reshape(RESAMPLES, len(sums), _CELLS, _WIDTH)


def _describe(sums_W: np.ndarray, resampled_RW: np.ndarray, total: float) -> dict[str, Any]:
    described: dict[str, Any] = {"positions": int(sums_W[0]), "share": float(sums_W[0] / total) if total else None}
    for i, name in enumerate((*MEANS, "ssd_share")):
        over, under = 1 + 2 * i, 2 + 2 * i
        mean = sums_W[over] / sums_W[under]
        ratio_R = resampled_RW[:, over] / resampled_RW[:, under]
        ratio_R = ratio_R[np.isfinite(ratio_R)]  # a resample may miss a rare class altogether
        if np.isfinite(mean) and len(ratio_R):
            low, high = np.percentile(ratio_R, [2.5, 97.5])
            described[name] = {"mean": float(mean), "low": float(low), "high": float(high)}
        else:
            described[name] = {"mean": None, "low": None, "high": None}
    return described
