"""What a design finds: strengths of self-distillation by seeds and problems, from simulated estimates.

``python bench/attribution_design.py`` prints the tables of docs/statistics.md. Trainings and problems vary as
`study --estimate` assumes; the tests are those of the verdict, at Holm's first step.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from common import ROOT  # puts the package on the path

from ssdfast.attribution.estimates import Estimates, mean, variance
from ssdfast.attribution.power import ALPHA, POWER
from ssdfast.workflows.study.design import PROBLEM_DEVIATION, SEED_DEVIATION

assert ROOT
SEEDS, PROBLEMS = (2, 3, 5, 8), (10, 30, 100, 300)
STRENGTHS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
TESTS = {"one arm": 4, "three arms": 12}
STUDIES = 1000


def power(strength: float, seeds: int, problems: int, tests: int) -> float:
    """The fraction of simulated studies whose test finds this strength beyond the control."""
    rng = np.random.default_rng((seeds, problems))
    arms = []
    for shift in (strength, 0.0):
        common_GX = PROBLEM_DEVIATION / np.sqrt(2) * rng.standard_normal((problems, STUDIES))
        values = [shift + SEED_DEVIATION * rng.standard_normal(STUDIES) + common_GX for _ in range(seeds)]
        arms.append([Estimates(value.mean(0), (value - value.mean(0)) / problems) for value in values])
    spread = variance(*arms)
    square_X = (mean(arms[0]) - mean(arms[1])) ** 2
    return float(np.mean(square_X > spread.squared_half_width_X(1 - ALPHA / tests)))


def table(tests: int) -> Iterator[str]:
    """The smallest of STRENGTHS that is found with a power of 80 %, as rows of Markdown."""
    yield f"| seeds per arm | {' | '.join(f'{problems} problems' for problems in PROBLEMS)} |"
    yield "|---" * (len(PROBLEMS) + 1) + "|"
    for seeds in SEEDS:
        cells = []
        for problems in PROBLEMS:
            detected = [strength for strength in STRENGTHS if power(strength, seeds, problems, tests) >= POWER]
            cells.append(f"{detected[0]:g}" if detected else "none")
        yield f"| {seeds} | {' | '.join(cells)} |"


def main() -> None:
    for name, tests in TESTS.items():
        print(f"{name} beside the control ({tests} tests)")
        print("\n".join(table(tests)))


if __name__ == "__main__":
    main()
