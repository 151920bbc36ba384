"""From the table of samples to what is said of each arm: accuracy, pass@k, variance, health, by difficulty and source.

Everything is JSON, shares are 0 to 1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from .diagnostics import lengths, share
from .runs import Arm
from .stats.intervals import accuracy
from .stats.pass_at_k import pass_at, pass_at_k
from .stats.power import split_variance
from .stats.scores import Outcomes, gather


def outcomes_of(rows: pa.Table, column: str = "verdict") -> Outcomes:
    """Right or wrong, sample by sample; or another column that is true or false."""
    values = rows[column].to_numpy(zero_copy_only=False)
    return gather(_strings(rows["problem_id"]), values == "correct" if column == "verdict" else values)


def summary_of(arm: Arm, rows: pa.Table, pass_ks: Sequence[int], seed: int) -> dict[str, Any]:
    """What is said of an arm. Raises ValueError where a problem has fewer than k samples."""
    outcomes = outcomes_of(rows)
    try:
        passes = {str(k): _pass_at(outcomes, k, seed) for k in pass_ks}
    except ValueError as error:
        raise ValueError(f"{arm}: {error}") from None
    return {
        "name": str(arm),
        "checkpoint": arm.checkpoint,
        **arm.setting._asdict(),
        **_figures(rows, outcomes, seed),
        "pass_at": passes,
        "variance": _variance(outcomes),
        "by_difficulty": _by("difficulty", rows, seed),
        "by_source": _by("source", rows, seed),
    }


def _by(column: str, rows: pa.Table, seed: int) -> dict[str, Any]:
    """Figures of each value of a column, "" where it has none, in their order as numbers or else as text."""
    values = [value or "" for value in rows[column].to_pylist()]
    found: dict[str, list[int]] = {}
    for place, value in enumerate(values):
        found.setdefault(value, []).append(place)
    parts = {value: rows.take(found[value]) for value in sorted(found, key=_as_number)}
    return {value: _figures(part, outcomes_of(part), seed) for value, part in parts.items()}


def _as_number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return math.inf, text


def _figures(rows: pa.Table, outcomes: Outcomes, seed: int) -> dict[str, Any]:
    return {
        "problems": len(outcomes.problem_ids),
        "samples": len(rows),
        "accuracy": _share(outcomes, seed),
        "verdicts": dict(sorted(Counter(rows["verdict"].to_pylist()).items())),
        "health": _health(rows, seed),
    }


def _health(rows: pa.Table, seed: int) -> dict[str, Any]:
    thinks, closed, boxed, looped, in_tokens = (
        rows[name].to_numpy(zero_copy_only=False) for name in ("thinks", "closed", "boxed", "looped", "in_tokens")
    )
    answered = np.array([answer is not None for answer in rows["extracted"].to_pylist()])
    ended = [reason for reason in rows["finish_reason"].to_pylist() if reason is not None]
    length_N = rows["length"].to_numpy()
    correct_N = _strings(rows["verdict"]) == "correct"
    return {
        "answered": _share(gather(_strings(rows["problem_id"]), answered), seed),
        "boxed": share(boxed),
        "thinks": share(thinks),
        "think_closed": share(closed[thinks]),  # of those that think; null where none does
        "length_stops": share([reason == "length" for reason in ended]),
        "loops": share(looped),
        "repetition": float(rows["repetition"].to_numpy().mean()),
        "length_unit": "tokens" if in_tokens.all() else "words" if not in_tokens.any() else "tokens or words",
        "lengths": lengths(length_N),
        "lengths_correct": lengths(length_N[correct_N]) if correct_N.any() else None,
        "lengths_other": lengths(length_N[~correct_N]) if not correct_N.all() else None,
    }


def _share(outcomes: Outcomes, seed: int) -> dict[str, Any]:
    """With an interval where there are the two problems that one takes."""
    if len(outcomes.problem_ids) < 2 and outcomes.samples_P.max() > 1:
        return _alone(outcomes.mean_P)
    return asdict(accuracy(outcomes, seed=seed))


def _pass_at(outcomes: Outcomes, k: int, seed: int) -> dict[str, Any]:
    if len(outcomes.problem_ids) < 2 and outcomes.samples_P.min() >= k:
        return _alone(pass_at_k(outcomes.correct_P, outcomes.samples_P, k))
    return asdict(pass_at(outcomes, k, seed=seed))


def _alone(value_P: np.ndarray) -> dict[str, Any]:
    return {"estimate": float(value_P[0]), "low": None, "high": None, "level": None, "method": "one problem"}


def _variance(outcomes: Outcomes) -> dict[str, Any] | None:
    """Between and within problems; None where no problem has two samples, or there is one problem."""
    if outcomes.samples_P.max() < 2 or len(outcomes.samples_P) < 2:
        return None
    parts = split_variance(outcomes)
    of_all = parts.share_between
    return {"between": parts.between, "within": parts.within, "share_between": None if math.isnan(of_all) else of_all}


def _strings(column: pa.ChunkedArray) -> np.ndarray:
    return np.array(column.to_pylist(), dtype=str)
