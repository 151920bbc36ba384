"""The table of positions: one row per position, from the columns of the kernels and the traces they belong to.

Shape legend: N rows, V vocabulary, w values of a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from ..config import PositionClassConfig, ProbeConfig
from ..joined_shard import KEYS, without_known
from ..kernels import ProbeStats
from ..kernels.probe_stats.schema import ModelStats
from . import position_classes
from .plan import LoadedTrace
from .token_classes import TokenClasses

# The first entries of lists, in columns of their own: a summary does not read the lists.
FIRST_OF = {
    "base_top1_logprob": "base_top_logprobs",
    "trained_top1_logprob": "trained_top_logprobs",
    "trained_logprob_at_base_top1": "trained_logprobs_at_base_top",
}

OF_TRACES = (
    "trace_id", "problem_id", "trace_source", "correct", "position", "tokens_to_think_end", "token_id", "token_class",
)  # fmt: skip
OF_BASELINE = (
    *(f"base_{field.name}" for field in fields(ModelStats)), "base_top1_logprob", "position_class", "self_correction",
)  # fmt: skip
"""the columns that depend on no trained model"""

Columns = dict[str, np.ndarray]


def gather(blocks: Iterable[ProbeStats]) -> Columns:
    """Every column of the kernels by its name in the table, float32 or int32, [N] or [N, w]; of at least one block."""
    columns: dict[str, list[np.ndarray]] = {}
    for stats in blocks:
        for name, column in _columns(stats):
            columns.setdefault(name, []).append(column)
    return {name: np.concatenate(pieces) for name, pieces in columns.items()}


def make_table(
    traces: Sequence[LoadedTrace], columns: Columns, classes: TokenClasses, config: PositionClassConfig
) -> pa.Table:
    """The table of these traces' scored positions, trace by trace, which `columns` hold in that order.

    Without a trained model's columns it has those of the traces and of the baseline.
    """
    lengths = [len(trace.positions) for trace in traces]
    token_N = _concat([trace.completion_ids[trace.positions] for trace in traces])
    table: dict[str, pa.Array] = {
        name: _repeat([getattr(trace.item, name) for trace in traces], lengths, pa.string())
        for name in ("trace_id", "problem_id", "trace_source")
    }
    table["correct"] = _repeat([trace.item.correct for trace in traces], lengths, pa.bool_()).dictionary_decode()
    table["position"] = pa.array(_concat([trace.positions for trace in traces]))
    class_V = classes.of_token.numpy()
    think_end_V = class_V == classes.names.index("think_close")
    table["tokens_to_think_end"] = pa.array(_concat([_tokens_to_think_end(trace, think_end_V) for trace in traces]))
    table["token_id"] = pa.array(token_N)
    table["token_class"] = pa.DictionaryArray.from_arrays(pa.array(class_V[token_N]), list(classes.names))
    table |= {name: _arrow(values) for name, values in columns.items()}
    for name, list_name in FIRST_OF.items():
        if list_name in columns:
            table[name] = pa.array(np.ascontiguousarray(columns[list_name][:, 0]))
    top_p = np.exp(columns["base_top_logprobs"][:, :2])
    codes = position_classes.classify(
        top_p[:, 0], top_p[:, 1], columns["base_nucleus_size"], columns["base_tail_mass"], config
    )
    table["position_class"] = pa.DictionaryArray.from_arrays(codes, list(position_classes.POSITION_CLASSES))
    base_top1_N = columns["base_top_ids"][:, 0]
    if "trained_top_ids" in columns:
        table["top1_changed"] = pa.array(position_classes.top1_changes(base_top1_N, columns["trained_top_ids"][:, 0]))
    in_class_V = class_V == classes.names.index("self_correction")
    table["self_correction"] = pa.array(position_classes.self_corrections(base_top1_N, token_N, in_class_V))
    return pa.table(table)


def of_baseline(table: pa.Table) -> pa.Table:
    """The columns of the traces and the baseline."""
    return table.select([name for name in table.column_names if name in (*OF_TRACES, *OF_BASELINE)])


def of_trained(table: pa.Table) -> pa.Table:
    """The columns of the trained model and of the pair, with the keys of their rows, as `joined_shard` describes."""
    own = [name for name in table.column_names if name in KEYS or name not in (*OF_TRACES, *OF_BASELINE)]
    return without_known(table).select(own)


def column_metadata(config: ProbeConfig, classes: TokenClasses) -> dict[str, Any]:
    """What a reader of the columns needs to know, for the schema metadata of every shard."""
    settings = config.model_dump(mode="json")
    names = ("eval_sampling", "train_sampling", "top_logprobs", "lse_temperatures", "position_classes")
    return {"token_classes": list(classes.names), **{name: settings[name] for name in names}}


def _tokens_to_think_end(trace: LoadedTrace, think_end_V: np.ndarray) -> np.ndarray:
    """int32: tokens from each scored position to the last end of thinking, negative after it; to the completion's end
    where there is none."""
    ends = np.flatnonzero(think_end_V[trace.completion_ids])
    end = int(ends[-1]) if len(ends) else len(trace.completion_ids)
    distance: np.ndarray = end - trace.positions
    return distance


def _columns(stats: ProbeStats) -> Iterator[tuple[str, np.ndarray]]:
    for prefix, group in (("base_", stats.base), ("trained_", stats.trained), ("", stats.pair)):
        for name, column in vars(group).items() if group else ():
            dtype = torch.float32 if column.is_floating_point() else torch.int32
            yield prefix + name, column.to(dtype).cpu().numpy()


def _repeat(values: list[Any], lengths: list[int], kind: pa.DataType) -> pa.DictionaryArray:
    """A dictionary column that holds each trace's value on all of its rows."""
    distinct = list(dict.fromkeys(values))
    code = {value: i for i, value in enumerate(distinct)}
    codes = np.repeat(np.array([code[value] for value in values], np.int32), lengths)
    return pa.DictionaryArray.from_arrays(codes, pa.array(distinct, kind))


def _concat(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.int32), *arrays]).astype(np.int32)


def _arrow(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
