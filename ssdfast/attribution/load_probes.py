"""Probes of several models over the same positions, reduced to what the statistics need.

The table is read once, a part at a time. What stays is the sums of each trace and, for the fits, all positions up to
`FIT_POSITIONS` or as many drawn from all: by the trace's name and the place in it, so the same of every model.

Shape legend: T traces, G sets, W sums of a set, N positions kept.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from .metrics import sums_by_trace
from .mixture_model import Movement
from .probe_reader import Positions, Probe, Trace

FIT_POSITIONS = 100_000


@dataclass(frozen=True)
class Collected:
    """One probe over the traces that all probes have, in one order."""

    probe: Probe
    traces: list[Trace]
    checks: list[int]
    sums_TGW: np.ndarray
    invalid: int
    """positions without finite logits"""
    moved: Movement
    trace_N: np.ndarray
    """of the positions kept in `moved`"""

    def only(self, traces: Sequence[Trace]) -> Collected:
        """These traces, in this order."""
        place = {trace: i for i, trace in enumerate(self.traces)}
        order = [place[trace] for trace in traces]
        new_T = np.full(len(self.traces), -1)
        new_T[order] = np.arange(len(order))
        trace_N = new_T[self.trace_N]
        kept_N = np.flatnonzero(trace_N >= 0)
        kept_N = kept_N[np.argsort(trace_N[kept_N], kind="stable")]
        checks = [self.checks[i] for i in order]
        moved = taken(self.moved, kept_N)
        return Collected(self.probe, list(traces), checks, self.sums_TGW[order], self.invalid, moved, trace_N[kept_N])


def collect(directories: Sequence[Path]) -> list[Collected]:
    """The probes of these run directories, over the traces that all of them scored.

    Raises ValueError for probes with different settings, or that scored different positions of a trace, and where
    there is nothing to compare.
    """
    probes = [Probe.of(directory) for directory in directories]
    first = probes[0]
    for probe in probes[1:]:
        for name, value in first.settings.items():
            if probe.settings[name] != value:
                raise ValueError(
                    f"{first.directory} and {probe.directory} were probed with different settings ({name}: {value!r}"
                    f" and {probe.settings[name]!r}): probe every arm against one baseline, with one set of settings"
                )
        if probe.class_names != first.class_names:
            raise ValueError(
                f"{first.directory} and {probe.directory} differ in token_classes: probe all arms with one"
            )
    found = [_collect(probe) for probe in probes]
    common = set(found[0].traces).intersection(*(one.traces for one in found))
    traces = [trace for trace in found[0].traces if trace in common]
    if not traces:
        raise ValueError(f"{', '.join(map(str, directories))} share no trace: probe every arm on the same traces")
    paired = [one.only(traces) for one in found]
    for one in paired[1:]:
        for trace, check, theirs in zip(traces, paired[0].checks, one.checks, strict=True):
            if check != theirs:
                raise ValueError(
                    f"trace {trace.trace_id!r} of {trace.label!r} has other positions or tokens in"
                    f" {one.probe.directory} than in {first.directory}: probe every arm on the same positions"
                )
    return paired


def _collect(probe: Probe) -> Collected:
    share = min(1.0, FIT_POSITIONS / max(probe.rows(), 1))
    beta_M = 1 / np.array(probe.settings["temperatures"], np.float64)
    traces: list[Trace] = []
    checks: list[int] = []
    sums, moved, places, invalid = [], [], [], 0
    for at in probe.read():
        sums_TGW, left_out = sums_by_trace(at, probe.settings["train"], probe.class_names)
        kept_N = np.flatnonzero(_drawn(at, share) & np.isfinite(at.number["kl_ba"]))
        sums.append(sums_TGW)
        moved.append(_movement(at, kept_N, beta_M))
        places.append(at.trace_N[kept_N] + len(traces))
        traces += at.traces
        checks += at.checks
        invalid += left_out
    if not traces:
        raise ValueError(f"{probe.directory} holds no position: probe traces that have completions")
    return Collected(probe, traces, checks, np.concatenate(sums), invalid, joined(moved), np.concatenate(places))


_FIELDS = [field.name for field in fields(Movement)]


def joined(moved: Sequence[Movement]) -> Movement:
    """The positions of several, all at the same nodes."""
    whole = {name: np.concatenate([getattr(one, name) for one in moved]) for name in _FIELDS if name != "beta_M"}
    return Movement(**whole, beta_M=moved[0].beta_M)


def taken(moved: Movement, kept_N: np.ndarray) -> Movement:
    """Some of its positions."""
    return Movement(
        **{name: getattr(moved, name) if name == "beta_M" else getattr(moved, name)[kept_N] for name in _FIELDS}
    )


def _movement(at: Positions, kept_N: np.ndarray, beta_M: np.ndarray) -> Movement:
    whole = Movement(
        at.logp_a_NK, at.logp_b_NK, at.ends_NK, at.number["b_entropy"], at.number["kl_ba"], at.ending_N2,
        at.log_mass_NM, beta_M,
    )  # fmt: skip
    return taken(whole, kept_N)


def _drawn(at: Positions, share: float) -> np.ndarray:
    """bool [N]: as good as random, and the same in every probe."""
    if share >= 1:
        return np.ones(len(at.trace_N), bool)
    of_trace = np.array([zlib.crc32(f"{one.label}\0{one.trace_id}".encode()) for one in at.traces], np.uint64)
    mixed_N = (of_trace[at.trace_N] + at.position_N.astype(np.uint64) * np.uint64(2_654_435_769)) & np.uint64(2**32 - 1)
    mixed_N = ((mixed_N ^ (mixed_N >> np.uint64(16))) * np.uint64(73_244_475)) & np.uint64(2**32 - 1)
    drawn: np.ndarray = (mixed_N ^ (mixed_N >> np.uint64(16))) < share * 2**32
    return drawn
