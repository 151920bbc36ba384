"""What a study's design can find, before it runs: differences in strength by seeds and problems, and in accuracy."""

from __future__ import annotations

from collections.abc import Iterator

from ...attribution.power import FEWEST_PROBLEMS, component_tests, detectable_difference
from ...config import StudyConfig
from ...evaluation.stats.power import planned_mde_pp

SEED_DEVIATION, PROBLEM_DEVIATION = 0.04, 0.11
"""standard deviations of the strength of self-distillation between trainings of one recipe, and of the difference of
two trainings between problems, both as in the demo study"""
_SEEDS, _PROBLEMS = (2, 3, 5, 8), (30, 100, 300, 1000)


def format_design(config: StudyConfig, eval_problems: int) -> Iterator[str]:
    """Lines for a person. eval_problems: the problems of the evaluation, at whose answers the models are probed."""
    problems = min(eval_problems, config.num_probe_traces or eval_problems)
    seeds = min(len(config.arm_seeds(arm)) for arm in config.arms)
    tests = component_tests(max(2, len(config.arms)))  # a control alone has none; the table is for one arm
    if problems < FEWEST_PROBLEMS:
        yield (
            f"no verdict: the models are probed at answers to {problems} problems, and at least {FEWEST_PROBLEMS} are"
            " needed"
        )
    if seeds < 2:
        yield (
            "verdicts with one seed per arm are about these trained models, not about the recipes: set seeds to 3 or"
            " more, 5 to find moderate effects"
        )
    else:
        smallest = detectable_difference(seeds, problems, SEED_DEVIATION, PROBLEM_DEVIATION, tests)
        yield (
            f"minimum detectable strength of self-distillation beyond the control, {seeds} seeds per arm and"
            f" {problems:,} problems: {_format_strength(smallest)} (power 80 %, corrected for {tests} tests)"
        )
    yield f"  {'problems':>12}" + "".join(f"{count:>8,}" for count in _PROBLEMS)
    for count in _SEEDS:
        cells = (detectable_difference(count, number, SEED_DEVIATION, PROBLEM_DEVIATION, tests) for number in _PROBLEMS)
        yield f"  {count:>6} seeds" + "".join(f"{_format_strength(cell):>8}" for cell in cells)
    yield (
        f"  if strengths vary by {SEED_DEVIATION:g} between trainings of one recipe and by {PROBLEM_DEVIATION:g}"
        " between problems, as in the demo study"
    )
    samples = config.samples_per_problem
    smallest_pp = planned_mde_pp(eval_problems, samples) if eval_problems > 1 else None
    effect = "none" if smallest_pp is None else f"{smallest_pp:.1f} percentage points"
    yield (
        f"minimum detectable difference in accuracy of one model from the baseline, {eval_problems:,} problems x"
        f" {samples} sample{'s' if samples > 1 else ''}: {effect} (power 80 %, not corrected)"
    )


def _format_strength(strength: float | None) -> str:
    """A strength is at most 1."""
    return "none" if strength is None or strength > 1 else f"{strength:.2f}"
