"""Which runs are compared: every checkpoint with the baseline at its best, selected on problems that are not reported.

A baseline at an untuned temperature makes any training look good, and the best of a sweep looks better than it is on
the problems that selected it. So where there is a choice, half of the problems select the best run of the baseline and
of every other checkpoint, and the other half reports; all p-values of the sweep are corrected together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..statistics import holm
from .runs import Run
from .stats.paired_tests import compare
from .stats.power import PairedDesign, paired_variance
from .stats.scores import Scores, check_same_problems
from .stats.subsets import stratified_subset


def compare_runs(
    scores: Mapping[Run, Scores], baseline: str, strata: Mapping[str, object], seed: int
) -> dict[str, Any]:
    """The comparisons and the selection of the best runs, as JSON; differences are in percentage points.

    baseline: the name of its checkpoint. strata: the stratum of each problem, so that both halves are alike.
    Raises ValueError for runs over different problems, naming the first that differ, and for fewer than 4 problems
    where half of them are to select.
    """
    runs_by_checkpoint: dict[str, list[Run]] = {}
    for run in scores:
        runs_by_checkpoint.setdefault(run.checkpoint, []).append(run)
    first = runs_by_checkpoint[baseline][0]
    for run in scores:
        _check(first, run, scores)
    others = [checkpoint for checkpoint in runs_by_checkpoint if checkpoint != baseline]
    if not others:
        return {"selection": None, "comparisons": []}
    problem_ids = scores[first].problem_ids
    swept = len(scores) > len(runs_by_checkpoint)
    selecting, reporting = _halves(problem_ids, strata, seed) if swept else ((), problem_ids)
    best = {checkpoint: _best(runs, scores, selecting) for checkpoint, runs in runs_by_checkpoint.items()}
    pairs = [(best[baseline], run) for checkpoint in others for run in runs_by_checkpoint[checkpoint]]
    differences = [compare(scores[a].select(reporting), scores[b].select(reporting), seed=seed) for a, b in pairs]
    adjusted = holm([difference.p_value for difference in differences])
    comparisons = [
        {
            "baseline": str(a),
            "run": str(b),
            "is_best_run": b == best[b.checkpoint],
            **asdict(difference),
            "p_value_holm": float(p_value),
            "design": _design(scores[a].select(reporting), scores[b].select(reporting)),
        }
        for (a, b), difference, p_value in zip(pairs, differences, adjusted, strict=True)
    ]
    selection = {
        "selection_problems": len(selecting),
        "reporting_problems": len(reporting),
        "best_runs": {
            checkpoint: {"run": str(run), "selection_accuracy": float(scores[run].select(selecting).mean_P.mean())}
            for checkpoint, run in best.items()
            if selecting
        },
    }
    return {"selection": selection if selecting else None, "comparisons": comparisons}


def _check(first: Run, run: Run, scores: Mapping[Run, Scores]) -> None:
    try:
        check_same_problems(scores[first], scores[run])
    except ValueError as error:
        raise ValueError(f"{first} and {run}: {error}") from None


def _halves(
    problem_ids: Sequence[str], strata: Mapping[str, object], seed: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The problems that select the best runs, and those that report."""
    if len(problem_ids) < 4:
        raise ValueError(
            f"{len(problem_ids)} problems are too few for one half to select the sampling parameters and the other to"
            " report: evaluate at least 4, or a single set of sampling parameters"
        )
    problem_strata = [str(strata[name]) for name in problem_ids]
    selecting = stratified_subset(problem_ids, problem_strata, len(problem_ids) // 2, seed)
    selected = set(selecting)
    return selecting, tuple(name for name in problem_ids if name not in selected)


def _best(runs: Sequence[Run], scores: Mapping[Run, Scores], selecting: Sequence[str]) -> Run:
    """The most accurate run on the selecting half; of equals the first."""
    if len(runs) == 1:
        return runs[0]
    return max(runs, key=lambda run: scores[run].select(selecting).mean_P.mean())


def _design(baseline: Scores, run: Scores) -> dict[str, float | None] | None:
    """The variance components of the difference, and the minimum detectable effect with twice the samples.

    None where no problem of one of the runs has two samples, or no score varies.
    """
    if min(baseline.samples_P.max(), run.samples_P.max()) < 2:
        return None
    variance = paired_variance(baseline, run)
    samples = round(min(baseline.samples_P.mean(), run.samples_P.mean()))
    problems = len(baseline.problem_ids)
    if not variance.interaction + variance.within_baseline + variance.within_run > 0:
        return None

    # Equal seeds correlate the runs' samples, which the components do not model: then the effect is unknown.
    doubled = None if variance.clipped else PairedDesign(problems, 2 * samples, variance).minimum_detectable_effect()
    return {
        "interaction": variance.interaction,
        "within_baseline": variance.within_baseline,
        "within_run": variance.within_run,
        "mde_pp_with_twice_the_samples": None if doubled is None else 100 * doubled,
    }
