"""A finished probe as arrays, one shard at a time.

Shape legend: N positions of a shard, T traces in it, K entries of the top lists, M temperatures, C token classes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ..schemas import AttributionSettings, ProbeSummary
from ..sharded_table import ShardedTable, trace_starts

EOS_CLASSES = ("end_of_text", "think_close")
CE_TERMS = ("ce_compression", "ce_reshaping", "ce_alignment")
"""the terms of the loss CE(q, p), as the columns of each model name them"""

_FLOATS = (
    "kl_base_trained", "kl_trained_base", "logratio_var", "ssd_cov", "ssd_var", "ssd_alignment", "base_entropy",
    "trained_entropy", "base_lse", *(f"{model}_{term}" for model in ("base", "trained") for term in CE_TERMS),
)  # fmt: skip
_LISTS = (
    "base_top_ids", "base_top_logprobs", "trained_logprobs_at_base_top", "base_lse_T", "base_class_mass",
    "trained_class_mass",
)  # fmt: skip
_TEXTS = ("trace_source", "trace_id", "problem_id", "position_class", "token_class")
_COLUMNS = [
    *_TEXTS, "correct", "position", "tokens_to_think_end", "token_id", "top1_changed", "self_correction", *_FLOATS,
    *_LISTS,
]  # fmt: skip


class Trace(NamedTuple):
    """A trace: its source, its id, and the problem that it answers."""

    trace_source: str
    trace_id: str
    problem_id: str


@dataclass(frozen=True)
class Positions:
    """Whole traces of a probe. Floats are float64, in nats where they are logarithms."""

    traces: list[Trace]
    checksums: list[int]
    """of the positions and tokens of each trace: equal in probes of the same positions"""
    trace_N: np.ndarray
    position_N: np.ndarray
    tokens_to_think_end_N: np.ndarray
    correct_N: np.ndarray
    """1 correct, 0 incorrect, -1 unknown"""
    position_class_N: np.ndarray
    token_class_N: np.ndarray
    """both as strings"""
    top1_changed_N: np.ndarray
    self_correction_N: np.ndarray
    columns: dict[str, np.ndarray]
    """the number columns by their name in the table, each [N]"""
    eos_mass_N2: np.ndarray
    """probability of ending the text or the thinking, under baseline and trained model"""
    base_logp_NK: np.ndarray
    trained_logp_NK: np.ndarray
    """log-probabilities of the baseline's most likely tokens under both models"""
    is_eos_NK: np.ndarray
    """which of these tokens end the text or the thinking"""
    log_mass_NM: np.ndarray
    """log Σ_v p_base(v)^(1/T) over the vocabulary for each T of the probe's `lse_temperatures`"""


@dataclass(frozen=True)
class Probe:
    """A run directory of `ssdfast probe`."""

    directory: Path
    settings: AttributionSettings
    """those that two probes must have in common"""
    token_classes: tuple[str, ...]
    eos_ids: np.ndarray
    failed: int
    _table: ShardedTable

    @staticmethod
    def open(directory: Path) -> Probe:
        """Raises ValueError for a probe that is not finished, or whose settings do not allow attribution."""
        summary_file = directory / "summary.json"
        if not summary_file.exists():
            raise ValueError(
                f"{directory} has no summary.json: finish the probe with `ssdfast probe --out {directory}`"
            )
        summary = ProbeSummary.read(summary_file)
        table = ShardedTable.from_run(directory, summary.settings.table_dir)
        shared = AttributionSettings(
            **{name: getattr(summary.settings, name) for name in AttributionSettings.model_fields}
        )
        top_k, top_logprobs = shared.train_sampling.top_k, shared.top_logprobs
        if not 1 <= top_k <= top_logprobs:
            raise ValueError(
                f"{directory} was probed with train_sampling.top_k = {top_k}: attribution needs 1 to top_logprobs ="
                f" {top_logprobs}, or the table does not hold the target distribution. Probe with the train_sampling of"
                " the self-distillation arm"
            )
        if set(shared.lse_temperatures) <= {1.0}:
            raise ValueError(
                f"{directory} was probed at temperature 1 alone: attribution fits a temperature. Add other"
                " lse_temperatures and probe again"
            )
        ids = np.array(summary.eos_ids, np.int64)
        return Probe(directory, shared, tuple(summary.token_classes), ids, len(summary.failed), table)

    def rows(self) -> int:
        """The number of positions in all shards."""
        return sum(shard.metadata.num_rows for shard in self._table.shards())

    def tables(self, columns: list[str]) -> Iterator[pa.Table]:
        """These columns, one shard at a time. Raises ValueError that names the shard and the columns it lacks."""
        for file in self._table.files():
            with self._table.open(file) as shard:
                if missing := [name for name in columns if name not in shard.schema_arrow.names]:
                    raise ValueError(
                        f"{file} lacks {', '.join(missing)}, another version wrote it: run the probe again --overwrite"
                    )
                table = shard.read(columns).combine_chunks()
            if len(table):
                yield table

    def read(self) -> Iterator[Positions]:
        """The shards in order. Raises ValueError as `tables`."""
        return map(self._positions, self.tables(_COLUMNS))

    def _positions(self, table: pa.Table) -> Positions:
        columns = {name: table[name].to_numpy().astype(np.float64) for name in _FLOATS}
        lists = {name: list_values(table[name]) for name in _LISTS}
        texts = {name: _texts(table[name]) for name in _TEXTS}
        position_N, token_N = table["position"].to_numpy(), table["token_id"].to_numpy()
        starts_T = trace_starts(table)
        ends_T = np.append(starts_T[1:], len(table))
        eos = [self.token_classes.index(name) for name in EOS_CLASSES]
        temperatures = np.array(self.settings.lse_temperatures, np.float64)
        correct = table["correct"].to_pylist()
        return Positions(
            traces=[Trace(*(str(texts[name][i]) for name in Trace._fields)) for i in starts_T],
            checksums=[
                zlib.crc32(token_N[i:j].tobytes(), zlib.crc32(position_N[i:j].tobytes()))
                for i, j in zip(starts_T, ends_T, strict=True)
            ],
            trace_N=np.repeat(np.arange(len(starts_T)), ends_T - starts_T),
            position_N=position_N,
            tokens_to_think_end_N=table["tokens_to_think_end"].to_numpy(),
            correct_N=np.array([-1 if value is None else int(value) for value in correct], np.int8),
            position_class_N=texts["position_class"],
            token_class_N=texts["token_class"],
            top1_changed_N=table["top1_changed"].to_numpy(),
            self_correction_N=table["self_correction"].to_numpy(),
            columns=columns,
            eos_mass_N2=np.stack([lists[f"{model}_class_mass"][:, eos].sum(1) for model in ("base", "trained")], 1),
            base_logp_NK=lists["base_top_logprobs"],
            trained_logp_NK=lists["trained_logprobs_at_base_top"],
            is_eos_NK=np.isin(lists["base_top_ids"], self.eos_ids),
            log_mass_NM=lists["base_lse_T"] - columns["base_lse"][:, None] / temperatures,
        )


def list_values(column: pa.ChunkedArray) -> np.ndarray:
    """float64 [N, w] of a column of lists."""
    array = column.combine_chunks()
    return array.flatten().to_numpy(zero_copy_only=False).astype(np.float64).reshape(len(array), -1)


def _texts(column: pa.ChunkedArray) -> np.ndarray:
    """The strings [N] of a dictionary column."""
    array = column.combine_chunks()
    return np.array(array.dictionary.to_pylist(), object)[array.indices.to_numpy()]
