"""Probes of several models over the same positions, reduced to what the statistics need.

The table is read once, one shard at a time. What stays in memory is the sums of each trace and, for the fits, all
positions or a sample of about `FIT_POSITIONS`: it depends on the trace's name and the position, so it is the same for
every model. A study may have twenty probes, so the positions stay in the dtypes of the table, those of the baseline
once for all, and a fit makes float64 of one probe at a time.

Shape legend: T traces, G groups, W sums of a group, N positions of the fits.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from .metrics import sums_by_trace
from .mixture_model import Shift
from .position_groups import fit_classes
from .probe_reader import Positions, Probe, Trace

FIT_POSITIONS = 100_000


@dataclass(frozen=True)
class ArmProbe:
    """One probe over the traces that all probes have, in one order."""

    probe: Probe
    traces: list[Trace]
    checksums: list[int]
    sums_TGW: np.ndarray
    invalid: int
    """positions without finite logits"""
    columns: Shift
    """of the positions of the fits; float32 where the table has float32"""
    trace_N: np.ndarray
    """of these positions"""
    fit_class_N: np.ndarray
    """of these positions, the names in `position_groups.FIT_CLASSES`"""

    def positions(self, rows_N: np.ndarray | slice = slice(None)) -> Shift:
        """These positions of the fits, or all, in float64."""
        return _cast(take(self.columns, rows_N), np.float64)

    def select(self, traces: Sequence[Trace]) -> ArmProbe:
        """These traces, in this order."""
        if traces == self.traces:
            return self
        place = {trace: i for i, trace in enumerate(self.traces)}
        order = [place[trace] for trace in traces]
        new_T = np.full(len(self.traces), -1)
        new_T[order] = np.arange(len(order))
        trace_N = new_T[self.trace_N]
        rows_N = np.flatnonzero(trace_N >= 0)
        rows_N = rows_N[np.argsort(trace_N[rows_N], kind="stable")]
        checksums = [self.checksums[i] for i in order]
        columns = take(self.columns, rows_N)
        return ArmProbe(
            self.probe, list(traces), checksums, self.sums_TGW[order], self.invalid, columns, trace_N[rows_N],
            self.fit_class_N[rows_N],
        )  # fmt: skip

    def sharing(self, first: ArmProbe) -> ArmProbe:
        """The same with the arrays of `first` in the place of equal ones."""
        columns = Shift(
            **{name: _either(getattr(first.columns, name), getattr(self.columns, name)) for name in _FIELDS}
        )
        trace_N, fit_class_N = _either(first.trace_N, self.trace_N), _either(first.fit_class_N, self.fit_class_N)
        return replace(self, columns=columns, trace_N=trace_N, fit_class_N=fit_class_N)


def read_probes(directories: Sequence[Path]) -> list[ArmProbe]:
    """The probes of these run directories, over the traces that all of them scored.

    Raises ValueError for probes with different settings, or that scored different positions of a trace, and where
    there is nothing to compare.
    """
    probes = [Probe.open(directory) for directory in directories]
    first = probes[0]
    for probe in probes[1:]:
        other = probe.settings.to_json()
        for name, value in first.settings.to_json().items():
            if other[name] != value:
                raise ValueError(
                    f"{first.directory} and {probe.directory} were probed with different settings ({name}: {value!r}"
                    f" and {other[name]!r}): probe every arm against one baseline, with one set of settings"
                )
        if probe.token_classes != first.token_classes:
            raise ValueError(
                f"{first.directory} and {probe.directory} differ in token_classes: probe all arms with one"
            )
    loaded: list[ArmProbe] = []
    for probe in probes:
        arm_probe = _load(probe)
        loaded.append(arm_probe.sharing(loaded[0]) if loaded else arm_probe)
    common = set(loaded[0].traces).intersection(*(probe.traces for probe in loaded))
    traces = [trace for trace in loaded[0].traces if trace in common]
    if not traces:
        raise ValueError(
            f"{', '.join(map(str, directories))} have no trace in common: probe every arm on the same traces"
        )
    selected: list[ArmProbe] = []
    while loaded:
        arm_probe = loaded.pop(0).select(traces)
        selected.append(arm_probe.sharing(selected[0]) if selected else arm_probe)
    for arm_probe in selected[1:]:
        for trace, ours, theirs in zip(traces, selected[0].checksums, arm_probe.checksums, strict=True):
            if ours != theirs:
                raise ValueError(
                    f"trace {trace.trace_id!r} of {trace.trace_source!r} has other positions or tokens in"
                    f" {arm_probe.probe.directory} than in {first.directory}: probe every arm on the same positions"
                )
    return selected


def _load(probe: Probe) -> ArmProbe:
    fraction = min(1.0, FIT_POSITIONS / max(probe.rows(), 1))
    beta_M = 1 / np.array(probe.settings.lse_temperatures, np.float64)
    traces: list[Trace] = []
    checksums: list[int] = []
    sums, shifts, trace_indices, classes, invalid = [], [], [], [], 0
    for positions in probe.read():
        sums_TGW, shard_invalid = sums_by_trace(positions, probe.settings.train_sampling, probe.token_classes)
        rows_N = np.flatnonzero(_sample(positions, fraction) & np.isfinite(positions.columns["kl_trained_base"]))
        sums.append(sums_TGW)
        shifts.append(_shift(positions, rows_N, beta_M))
        trace_indices.append(positions.trace_N[rows_N] + len(traces))
        classes.append(fit_classes(positions)[rows_N])
        traces += positions.traces
        checksums += positions.checksums
        invalid += shard_invalid
    pa.default_memory_pool().release_unused()  # of the shards, some 80 MB
    if not traces:
        raise ValueError(f"{probe.directory} holds no position: probe traces that have completions")
    if not any(map(len, trace_indices)):
        raise ValueError(
            f"{probe.directory} has {invalid:,} positions and finite logits at none of them: train the model again,"
            " since some of its weights are no numbers, or leave this probe out"
        )
    return ArmProbe(
        probe, traces, checksums, np.concatenate(sums), invalid, concat(shifts), np.concatenate(trace_indices),
        np.concatenate(classes),
    )  # fmt: skip


_FIELDS = [field.name for field in fields(Shift)]
_FLOAT32 = ("base_logp_NK", "trained_logp_NK", "trained_entropy_N", "kl_N")  # as the table has them


def concat(shifts: Sequence[Shift]) -> Shift:
    """The positions of several, all at the same nodes."""
    columns = {name: np.concatenate([getattr(shift, name) for shift in shifts]) for name in _FIELDS if name != "beta_M"}
    return Shift(**columns, beta_M=shifts[0].beta_M)


def take(shift: Shift, rows_N: np.ndarray | slice) -> Shift:
    """Some of its positions."""
    return Shift(
        **{name: getattr(shift, name) if name == "beta_M" else getattr(shift, name)[rows_N] for name in _FIELDS}
    )


def _shift(positions: Positions, rows_N: np.ndarray, beta_M: np.ndarray) -> Shift:
    shift = Shift(
        positions.base_logp_NK, positions.trained_logp_NK, positions.is_eos_NK, positions.columns["trained_entropy"],
        positions.columns["kl_trained_base"], positions.eos_mass_N2, positions.log_mass_NM, beta_M,
    )  # fmt: skip
    return _cast(take(shift, rows_N), np.float32)


def _cast(shift: Shift, dtype: type[np.floating]) -> Shift:
    """The columns that the table has in float32 in this dtype."""
    return replace(shift, **{name: getattr(shift, name).astype(dtype) for name in _FLOAT32})


def _either(first: np.ndarray, own: np.ndarray) -> np.ndarray:
    """`first` where both are equal, of which `own` can then be forgotten."""
    return first if np.array_equal(first, own) else own


def _sample(positions: Positions, fraction: float) -> np.ndarray:
    """bool [N]: pseudo-random, and the same in every probe."""
    if fraction >= 1:
        return np.ones(len(positions.trace_N), bool)
    hash_T = np.array(
        [zlib.crc32(f"{trace.trace_source}\0{trace.trace_id}".encode()) for trace in positions.traces], np.uint64
    )
    position_N = positions.position_N.astype(np.uint64)
    hash_N = (hash_T[positions.trace_N] + position_N * np.uint64(2_654_435_769)) & np.uint64(2**32 - 1)
    hash_N = ((hash_N ^ (hash_N >> np.uint64(16))) * np.uint64(73_244_475)) & np.uint64(2**32 - 1)
    sample_N: np.ndarray = (hash_N ^ (hash_N >> np.uint64(16))) < fraction * 2**32
    return sample_N
