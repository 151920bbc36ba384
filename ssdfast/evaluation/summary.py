"""Numbers of a run from the table of samples: accuracy, pass@k, variance, diagnostics, by difficulty and by source.

Everything is JSON; fractions are 0 to 1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from .diagnostics import fraction, length_summary
from .runs import Run
from .stats.intervals import accuracy
from .stats.pass_at_k import estimate_pass_at_k, mean_pass_at_k
from .stats.power import variance_components
from .stats.scores import Scores, gather_scores


def run_scores(rows: pa.Table, column: str = "grade") -> Scores:
    """1 for each correct sample and 0 for any other; or 1 and 0 of another column, which is true or false."""
    values = rows[column].to_numpy(zero_copy_only=False)
    return gather_scores(_strings(rows["problem_id"]), values == "correct" if column == "grade" else values)


def summarize_run(run: Run, rows: pa.Table, pass_ks: Sequence[int]) -> dict[str, Any]:
    """The entry of a run in results.json. Raises ValueError where a problem has fewer than k samples."""
    scores = run_scores(rows)
    try:
        passes = {str(k): _pass_at_k(scores, k) for k in pass_ks}
    except ValueError as error:
        raise ValueError(f"{run}: {error}") from None
    return {
        "name": str(run),
        "checkpoint": run.checkpoint,
        **run.sampling._asdict(),
        **_summary(rows, scores),
        "pass_at_k": passes,
        "variance": _variance(scores),
        "by_difficulty": _group_by("difficulty", rows),
        "by_source": _group_by("source", rows),
    }


def _group_by(column: str, rows: pa.Table) -> dict[str, Any]:
    """A summary per value of a column, "" where it is null, in numeric order or else as text."""
    values = [value or "" for value in rows[column].to_pylist()]
    places: dict[str, list[int]] = {}
    for place, value in enumerate(values):
        places.setdefault(value, []).append(place)
    groups = {value: rows.take(places[value]) for value in sorted(places, key=_numeric_order)}
    return {value: _summary(group, run_scores(group)) for value, group in groups.items()}


def _numeric_order(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return math.inf, text


def _summary(rows: pa.Table, scores: Scores) -> dict[str, Any]:
    return {
        "problems": len(scores.problem_ids),
        "samples": len(rows),
        "accuracy": _interval(scores),
        "grades": dict(sorted(Counter(rows["grade"].to_pylist()).items())),
        "diagnostics": _diagnostics(rows),
    }


def _diagnostics(rows: pa.Table) -> dict[str, Any]:
    thinking, think_closed, boxed, looped, in_tokens = (
        rows[name].to_numpy(zero_copy_only=False)
        for name in ("thinking", "think_closed", "boxed", "looped", "length_in_tokens")
    )
    answered = np.array([answer is not None for answer in rows["answer"].to_pylist()])
    finish_reasons = [reason for reason in rows["finish_reason"].to_pylist() if reason is not None]
    length_N = rows["length"].to_numpy()
    correct_N = _strings(rows["grade"]) == "correct"
    return {
        "answer_rate": _interval(gather_scores(_strings(rows["problem_id"]), answered)),
        "boxed_rate": fraction(boxed),
        "thinking_rate": fraction(thinking),
        "think_closed_rate": fraction(think_closed[thinking]),  # of the completions that think; null where none does
        "truncation_rate": fraction([reason == "length" for reason in finish_reasons]),
        "loop_rate": fraction(looped),
        "repetition": float(rows["repetition"].to_numpy().mean()),
        "length": {
            "unit": "tokens" if in_tokens.all() else "words" if not in_tokens.any() else "tokens or words",
            "all": length_summary(length_N),
            "correct": length_summary(length_N[correct_N]) if correct_N.any() else None,
            "incorrect": length_summary(length_N[~correct_N]) if not correct_N.all() else None,  # every other grade
        },
    }


def _interval(scores: Scores) -> dict[str, Any]:
    """The mean score, with an interval where there are at least two problems."""
    if len(scores.problem_ids) < 2 and scores.samples_P.max() > 1:
        return _without_interval(scores.mean_P)
    return asdict(accuracy(scores))


def _pass_at_k(scores: Scores, k: int) -> dict[str, Any]:
    if len(scores.problem_ids) < 2 and scores.samples_P.min() >= k:
        return _without_interval(estimate_pass_at_k(scores.correct_P, scores.samples_P, k))
    return asdict(mean_pass_at_k(scores, k))


def _without_interval(value_P: np.ndarray) -> dict[str, Any]:
    return {"value": float(value_P[0]), "ci_low": None, "ci_high": None, "ci_level": None, "ci_method": "one problem"}


def _variance(scores: Scores) -> dict[str, Any] | None:
    """Between and within problems; None where no problem has two samples, or there is one problem."""
    if scores.samples_P.max() < 2 or len(scores.samples_P) < 2:
        return None
    variance = variance_components(scores)
    between = variance.fraction_between
    return {
        "between": variance.between,
        "within": variance.within,
        "fraction_between": None if math.isnan(between) else between,
    }


def _strings(column: pa.ChunkedArray) -> np.ndarray:
    return np.array(column.to_pylist(), dtype=str)
