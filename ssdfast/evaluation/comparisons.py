"""Which arms are compared with which: every checkpoint with the baseline at its best, chosen where nothing is reported.

A baseline at an untuned temperature makes any training look good, and the best of a sweep looks better than it is on
the problems that chose it. So where there is a choice half of the problems choose, for the baseline and for every other
checkpoint, and the other half reports; all p-values of the sweep are corrected together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..statistics import holm
from .runs import Arm
from .stats.paired_tests import compare
from .stats.power import PairedDesign, paired_variance
from .stats.scores import Outcomes, check_same_problems
from .stats.subsets import subset


def compared(
    outcomes: Mapping[Arm, Outcomes], baseline: str, strata: Mapping[str, object], seed: int
) -> dict[str, Any]:
    """Comparisons and how the decodings were chosen, JSON; differences are in percentage points.

    baseline: its label. strata: of each problem, so that both halves are alike.
    Raises ValueError for arms over different problems, naming the first that differ, and for fewer than 4 problems
    where half of them are to choose.
    """
    of_checkpoint: dict[str, list[Arm]] = {}
    for arm in outcomes:
        of_checkpoint.setdefault(arm.checkpoint, []).append(arm)
    first = outcomes[of_checkpoint[baseline][0]]
    for arm in outcomes:
        _check(of_checkpoint[baseline][0], arm, first, outcomes[arm])
    others = [label for label in of_checkpoint if label != baseline]
    if not others:
        return {"selection": None, "comparisons": []}
    choosing, reporting = _halves(first.problem_ids, strata, seed) if len(outcomes) > len(of_checkpoint) else ((), ())
    on = reporting or first.problem_ids
    best = {label: _best(arms, outcomes, choosing) for label, arms in of_checkpoint.items()}
    pairs = [(best[baseline], arm) for label in others for arm in of_checkpoint[label]]
    differences = [compare(outcomes[a].only(on), outcomes[b].only(on), seed=seed) for a, b in pairs]
    adjusted = holm([difference.p for difference in differences])
    comparisons = [
        {
            "baseline": str(a),
            "arm": str(b),
            "chosen": b == best[b.checkpoint],
            **asdict(difference),
            "p_holm": float(p),
            "design": _design(outcomes[a].only(on), outcomes[b].only(on)),
        }
        for (a, b), difference, p in zip(pairs, differences, adjusted, strict=True)
    ]
    chosen = {
        label: {"arm": str(arm), "accuracy_where_chosen": float(outcomes[arm].only(choosing).mean_P.mean())}
        for label, arm in best.items()
        if choosing
    }
    selection = {"problems": len(choosing), "reported_on": len(on), "chosen": chosen} if choosing else None
    return {"selection": selection, "comparisons": comparisons}


def _check(first: Arm, arm: Arm, ours: Outcomes, theirs: Outcomes) -> None:
    try:
        check_same_problems(ours, theirs)
    except ValueError as error:
        raise ValueError(f"{first} and {arm}: {error}") from None


def _halves(
    problem_ids: Sequence[str], strata: Mapping[str, object], seed: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if len(problem_ids) < 4:
        raise ValueError(
            f"of {len(problem_ids)} problems one half cannot choose the decoding and the other report: evaluate at"
            " least 4, or a single decoding"
        )
    choosing = subset(problem_ids, [str(strata[name]) for name in problem_ids], len(problem_ids) // 2, seed)
    taken = set(choosing)
    return choosing, tuple(name for name in problem_ids if name not in taken)


def _best(arms: Sequence[Arm], outcomes: Mapping[Arm, Outcomes], choosing: Sequence[str]) -> Arm:
    """The most accurate on the choosing half; of equals the first."""
    if len(arms) == 1:
        return arms[0]
    return max(arms, key=lambda arm: outcomes[arm].only(choosing).mean_P.mean())


def _design(first: Outcomes, second: Outcomes) -> dict[str, float | None] | None:
    """Where the variance of the difference lies, and what twice the samples would let one see, in points.

    None where one of the arms has two samples of no problem, or no score varies.
    """
    if min(first.samples_P.max(), second.samples_P.max()) < 2:
        return None
    parts = paired_variance(first, second)
    samples = round(min(first.samples_P.mean(), second.samples_P.mean()))
    problems = len(first.problem_ids)
    if not parts.interaction + parts.within_first + parts.within_second > 0:
        return None

    again = PairedDesign(problems, 2 * samples, parts)
    return {
        "interaction": parts.interaction,
        "within_baseline": parts.within_first,
        "within_arm": parts.within_second,
        # Alike seeds make the arms' samples alike, which the parts know nothing of: then there is no telling.
        "detectable_with_twice_the_samples": None if parts.clipped else 100 * again.detectable_effect(),
    }
