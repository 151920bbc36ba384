"""A finished probe as arrays, a part at a time.

Shape legend: N positions of a part, T traces in it, K entries of the top lists, M temperatures, C token classes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ..run_dir import read_json
from ..sharded_table import Parts, trace_starts

ENDINGS = ("end_of_text", "think_close")
TERMS = ("compression", "reshaping", "head_alignment")
"""of the loss CE(q, p), in the order of the column ssd_terms"""

_FLOATS = (
    "kl_ab", "kl_ba", "delta_var", "ssd_push", "ssd_chi2", "ssd_alignment", "a_entropy", "b_entropy", "a_lse",
)  # fmt: skip
_LISTS = ("a_top_ids", "a_top_logprobs", "b_at_a_top", "a_lse_T", "a_class_mass", "b_class_mass", "ssd_terms")
_NAMES = ("label", "trace_id", "problem_id", "position_class", "token_class")
_COLUMNS = [
    *_NAMES, "correct", "position", "to_think_end", "token_id", "swap", "self_correction", *_FLOATS, *_LISTS,
]  # fmt: skip


class Trace(NamedTuple):
    """Who made it and which it is; the problem that it answers."""

    label: str
    trace_id: str
    problem_id: str


@dataclass(frozen=True)
class Positions:
    """Whole traces of a probe. Floats are float64, in nats where they are logarithms."""

    traces: list[Trace]
    checks: list[int]
    """of the positions and tokens of each trace: alike in probes of the same positions"""
    trace_N: np.ndarray
    position_N: np.ndarray
    to_think_end_N: np.ndarray
    correct_N: np.ndarray
    """1 right, 0 wrong, -1 not known"""
    position_class_N: np.ndarray
    token_class_N: np.ndarray
    """both as strings"""
    swap_N: np.ndarray
    self_correction_N: np.ndarray
    number: dict[str, np.ndarray]
    """kl_ab, kl_ba, delta_var, ssd_push, ssd_chi2, ssd_alignment, a_entropy, b_entropy, each [N]"""
    terms_N23: np.ndarray
    """the loss terms of baseline and trained model"""
    ending_N2: np.ndarray
    """probability of ending, the text or the thinking, under baseline and trained model"""
    logp_a_NK: np.ndarray
    logp_b_NK: np.ndarray
    """log-probabilities of the baseline's likeliest tokens under both models"""
    ends_NK: np.ndarray
    """which of these tokens end"""
    log_mass_NM: np.ndarray
    """log Σ_v p_a(v)^(1/T) over the vocabulary for each T of the probe's `temperatures`"""


@dataclass(frozen=True)
class Probe:
    """A run directory of `ssdfast probe`."""

    directory: Path
    settings: dict[str, Any]
    """those that two probes have to share"""
    class_names: tuple[str, ...]
    ending_ids: np.ndarray
    failed: int
    _parts: Parts

    @staticmethod
    def of(directory: Path) -> Probe:
        """Raises ValueError for a probe that is not finished, or that an older version wrote."""
        summary = directory / "summary.json"
        if not summary.exists():
            raise ValueError(f"{directory} holds no finished probe (no summary.json): run `ssdfast probe` to its end")
        found = read_json(summary)
        if "ending_ids" not in found:
            raise ValueError(f"{summary} lacks ending_ids, an older version wrote it: run the probe again --overwrite")
        settings = found["settings"]
        parts = Parts(settings["parts"] or str(directory / "probe"))
        shared = {name: settings[name] for name in ("baseline", "train", "top", "temperatures", "classes", "decoding")}
        k, top = shared["train"]["top_k"], shared["top"]
        if not 1 <= k <= top:
            raise ValueError(
                f"{directory} was probed with train.top_k = {k}: attribution needs a top_k of 1 to top = {top}, that of"
                " the self-distillation arm, or the prediction is not in the table"
            )
        if set(shared["temperatures"]) <= {1.0}:
            raise ValueError(
                f"{directory} was probed at temperature 1 alone: attribution fits a temperature, so the probe needs"
                " another among its temperatures"
            )
        ids = np.array(found["ending_ids"], np.int64)
        return Probe(directory, shared, tuple(found["class_names"]), ids, len(found["failed"]), parts)

    def rows(self) -> int:
        """Positions in all parts."""
        return sum(part.metadata.num_rows for part in self._parts.opened())

    def tables(self, columns: list[str]) -> Iterator[pa.Table]:
        """These columns, a part at a time. Raises ValueError that names the part and the columns it lacks."""
        for file in self._parts.files():
            with self._parts.open(file) as part:
                if missing := [name for name in columns if name not in part.schema_arrow.names]:
                    raise ValueError(
                        f"{file} lacks {', '.join(missing)}, an older version wrote it: run the probe again --overwrite"
                    )
                table = part.read(columns).combine_chunks()
            if len(table):
                yield table

    def read(self) -> Iterator[Positions]:
        """The parts in order. Raises ValueError as `tables`."""
        return map(self._positions, self.tables(_COLUMNS))

    def _positions(self, table: pa.Table) -> Positions:
        number = {name: table[name].to_numpy().astype(np.float64) for name in _FLOATS}
        wide = {name: lists(table[name]) for name in _LISTS}
        texts = {name: _texts(table[name]) for name in _NAMES}
        position_N, token_N = table["position"].to_numpy(), table["token_id"].to_numpy()
        starts_T = trace_starts(table)
        ends_T = np.append(starts_T[1:], len(table))
        ending = [self.class_names.index(name) for name in ENDINGS]
        temperatures = np.array(self.settings["temperatures"], np.float64)
        correct = table["correct"].to_pylist()
        return Positions(
            traces=[Trace(*(str(texts[name][i]) for name in ("label", "trace_id", "problem_id"))) for i in starts_T],
            checks=[
                zlib.crc32(token_N[i:j].tobytes(), zlib.crc32(position_N[i:j].tobytes()))
                for i, j in zip(starts_T, ends_T, strict=True)
            ],
            trace_N=np.repeat(np.arange(len(starts_T)), ends_T - starts_T),
            position_N=position_N,
            to_think_end_N=table["to_think_end"].to_numpy(),
            correct_N=np.array([-1 if one is None else int(one) for one in correct], np.int8),
            position_class_N=texts["position_class"],
            token_class_N=texts["token_class"],
            swap_N=table["swap"].to_numpy(),
            self_correction_N=table["self_correction"].to_numpy(),
            number=number,
            terms_N23=wide["ssd_terms"].reshape(-1, 2, 3),
            ending_N2=np.stack([wide[f"{side}_class_mass"][:, ending].sum(1) for side in "ab"], 1),
            logp_a_NK=wide["a_top_logprobs"],
            logp_b_NK=wide["b_at_a_top"],
            ends_NK=np.isin(wide["a_top_ids"], self.ending_ids),
            log_mass_NM=wide["a_lse_T"] - number["a_lse"][:, None] / temperatures,
        )


def lists(column: pa.ChunkedArray) -> np.ndarray:
    """float64 [N, w] of a column of lists."""
    whole = column.combine_chunks()
    return whole.flatten().to_numpy(zero_copy_only=False).astype(np.float64).reshape(len(whole), -1)


def _texts(column: pa.ChunkedArray) -> np.ndarray:
    """The strings [N] of a dictionary column."""
    whole = column.combine_chunks()
    return np.array(whole.dictionary.to_pylist(), object)[whole.indices.to_numpy()]
