"""The table of positions: a row a position, from the columns of the kernels and the traces they belong to.

Shape legend: N rows, w values of a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from ..config import ClassRules
from ..kernels import ProbeStats
from ..kernels.probe_stats.schema import CE_TERM_COLUMNS, KEPT_MASS_COLUMNS
from . import position_classes
from .plan import Scored
from .token_classes import TokenClasses

# The first entries of lists, in columns of their own: a summary need not read the lists.
FIRST_OF = {"a_top1_logprob": "a_top_logprobs", "b_top1_logprob": "b_top_logprobs", "b_at_a_top1": "b_at_a_top"}

Columns = dict[str, np.ndarray]


def gather(blocks: Iterable[ProbeStats]) -> Columns:
    """Every column of the kernels by its name in the table, float32 or int32, [N] or [N, w]; of at least one block."""
    columns: dict[str, list[np.ndarray]] = {}
    for stats in blocks:
        for name, column in _columns(stats):
            columns.setdefault(name, []).append(column)
    return {name: np.concatenate(found) for name, found in columns.items()}


def assembled(traces: Sequence[Scored], columns: Columns, classes: TokenClasses, rules: ClassRules) -> pa.Table:
    """The table of these traces' scored positions, trace by trace, which `columns` hold in that order."""
    lengths = [len(one.positions) for one in traces]
    token_N = _joined([one.completion_ids[one.positions] for one in traces])
    table: dict[str, pa.Array] = {
        name: _repeated([getattr(one.item, name) for one in traces], lengths, pa.string())
        for name in ("trace_id", "problem_id", "label")
    }
    table["correct"] = _repeated([one.item.correct for one in traces], lengths, pa.bool_()).dictionary_decode()
    table["position"] = pa.array(_joined([one.positions for one in traces]))
    close = classes.names.index("think_close")
    class_V = classes.of_token.numpy()
    table["to_think_end"] = pa.array(_joined([_to_think_end(one, class_V == close) for one in traces]))
    table["token_id"] = pa.array(token_N)
    table["token_class"] = pa.DictionaryArray.from_arrays(pa.array(class_V[token_N]), list(classes.names))
    table |= {name: _arrow(values) for name, values in columns.items()}
    for name, whole in FIRST_OF.items():
        table[name] = pa.array(np.ascontiguousarray(columns[whole][:, 0]))
    top_p = np.exp(columns["a_top_logprobs"][:, :2])
    codes = position_classes.classify(
        top_p[:, 0], top_p[:, 1], columns["a_nucleus_size"], columns["a_tail_mass"], rules
    )
    table["position_class"] = pa.DictionaryArray.from_arrays(codes, list(position_classes.POSITION_CLASSES))
    top_a_N, top_b_N = columns["a_top_ids"][:, 0], columns["b_top_ids"][:, 0]
    table["swap"] = pa.array(position_classes.swaps(top_a_N, top_b_N))
    correcting_V = class_V == classes.names.index("self_correction")
    table["self_correction"] = pa.array(position_classes.self_corrections(top_a_N, token_N, correcting_V))
    return pa.table(table)


def _to_think_end(one: Scored, closes_V: np.ndarray) -> np.ndarray:
    """int32: tokens from each scored position to the last end of thinking, negative after it; to the completion's end
    where there is none."""
    closing = np.flatnonzero(closes_V[one.completion_ids])
    end = int(closing[-1]) if len(closing) else len(one.completion_ids)
    distance: np.ndarray = end - one.positions
    return distance


# The table's names of some of the kernels' columns.
NAMES = {
    "kl_base_trained": "kl_ab",
    "kl_trained_base": "kl_ba",
    "logratio_var": "delta_var",
    "ssd_cov": "ssd_push",
    "ssd_var": "ssd_chi2",
    "trained_logprobs_at_base_top": "b_at_a_top",
    "base_logprobs_at_trained_top": "a_at_b_top",
}
JOINED = {"ssd_terms": CE_TERM_COLUMNS, "kept_mass": KEPT_MASS_COLUMNS}


def _columns(stats: ProbeStats) -> Iterator[tuple[str, np.ndarray]]:
    pair = {NAMES.get(name, name): column for name, column in vars(stats.pair).items()}
    for name, parts in JOINED.items():
        pair[name] = torch.stack([pair.pop(part) for part in parts], 1)
    for prefix, group in (("a_", vars(stats.base)), ("b_", vars(stats.trained)), ("", pair)):
        for name, column in group.items():
            dtype = torch.float32 if column.is_floating_point() else torch.int32
            yield prefix + name, column.to(dtype).cpu().numpy()


def _repeated(values: list[Any], lengths: list[int], kind: pa.DataType) -> pa.DictionaryArray:
    """A dictionary column that holds each trace's value on all of its rows."""
    distinct = list(dict.fromkeys(values))
    code = {value: i for i, value in enumerate(distinct)}
    codes = np.repeat(np.array([code[value] for value in values], np.int32), lengths)
    return pa.DictionaryArray.from_arrays(codes, pa.array(distinct, kind))


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.int32), *arrays]).astype(np.int32)


def _arrow(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
