"""Probes of several models over the same positions, reduced to what the statistics need.

The table is read once, one shard at a time. What stays in memory is the sums of each trace and, for the fits, all
positions or a sample of about `FIT_POSITIONS`: it depends on the trace's name and the position, so it is the same for
every model.

Shape legend: T traces, G groups, W sums of a group, N positions of the fits.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

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
    shift: Shift
    trace_N: np.ndarray
    """of the positions in `shift`"""
    fit_class_N: np.ndarray
    """of these positions, the names in `position_groups.FIT_CLASSES`"""

    def select(self, traces: Sequence[Trace]) -> ArmProbe:
        """These traces, in this order."""
        place = {trace: i for i, trace in enumerate(self.traces)}
        order = [place[trace] for trace in traces]
        new_T = np.full(len(self.traces), -1)
        new_T[order] = np.arange(len(order))
        trace_N = new_T[self.trace_N]
        rows_N = np.flatnonzero(trace_N >= 0)
        rows_N = rows_N[np.argsort(trace_N[rows_N], kind="stable")]
        checksums = [self.checksums[i] for i in order]
        shift = take(self.shift, rows_N)
        return ArmProbe(
            self.probe, list(traces), checksums, self.sums_TGW[order], self.invalid, shift, trace_N[rows_N],
            self.fit_class_N[rows_N],
        )  # fmt: skip


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
    loaded = [_load(probe) for probe in probes]
    common = set(loaded[0].traces).intersection(*(probe.traces for probe in loaded))
    traces = [trace for trace in loaded[0].traces if trace in common]
    if not traces:
        raise ValueError(
            f"{', '.join(map(str, directories))} have no trace in common: probe every arm on the same traces"
        )
    selected = [probe.select(traces) for probe in loaded]
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
    if not traces:
        raise ValueError(f"{probe.directory} holds no position: probe traces that have completions")
    return ArmProbe(
        probe, traces, checksums, np.concatenate(sums), invalid, concat(shifts), np.concatenate(trace_indices),
        np.concatenate(classes),
    )  # fmt: skip


_FIELDS = [field.name for field in fields(Shift)]


def concat(shifts: Sequence[Shift]) -> Shift:
    """The positions of several, all at the same nodes."""
    columns = {name: np.concatenate([getattr(shift, name) for shift in shifts]) for name in _FIELDS if name != "beta_M"}
    return Shift(**columns, beta_M=shifts[0].beta_M)


def take(shift: Shift, rows_N: np.ndarray) -> Shift:
    """Some of its positions."""
    return Shift(
        **{name: getattr(shift, name) if name == "beta_M" else getattr(shift, name)[rows_N] for name in _FIELDS}
    )


def _shift(positions: Positions, rows_N: np.ndarray, beta_M: np.ndarray) -> Shift:
    shift = Shift(
        positions.base_logp_NK, positions.trained_logp_NK, positions.is_eos_NK, positions.columns["trained_entropy"],
        positions.columns["kl_trained_base"], positions.eos_mass_N2, positions.log_mass_NM, beta_M,
    )  # fmt: skip
    return take(shift, rows_N)


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
