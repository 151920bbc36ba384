"""The power of a comparison at the minimum detectable effect that it states: ``python bench/evaluation_power.py``.

Problems and runs are those of `evaluation_coverage`. The effect is stated in three ways: from the design's true values,
from data without an effect, and from data with that effect. Power is that of the test's own p-values at it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from evaluation_coverage import WORKERS, pair

from ssdfast.evaluation.stats.intervals import is_single
from ssdfast.evaluation.stats.paired_tests import compare, mcnemar, sign_flips
from ssdfast.evaluation.stats.power import ALPHA, planned_mde_pp
from ssdfast.evaluation.stats.scores import Scores

DESIGNS = ((100, 1), (300, 1), (30, 16), (200, 4))
POPULATIONS = ((0.65, 0.85, 0.1), (0.5, 0.6, 0.1), (0.5, 0.3, 0.0))
"""The mean, the intraclass correlation, and the fraction of problems with new chances."""
STUDIES = 2000
RESAMPLES = 999
_PLANNED = 3
_GRID = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)  # of the planned effect, where power is measured


@dataclass(frozen=True)
class StatedEffect:
    """A minimum detectable effect in percentage points, and the power there."""

    design: str
    source: str
    """ "planned", "data without an effect" or "data with the effect"; of data, means over studies."""
    mde_pp: float
    power: float

    def __str__(self) -> str:
        return f"{self.design:66} {self.source:24} {self.mde_pp:6.2f} points, power {100 * self.power:.1f} %"


def stated() -> Iterator[StatedEffect]:
    cases = [(*design, *population) for design in DESIGNS for population in POPULATIONS]
    with ProcessPoolExecutor(WORKERS) as pool:
        for effects in pool.map(_stated, *zip(*cases, strict=True)):
            yield from effects


def _stated(problems: int, samples: int, mean: float, correlation: float, changed: float) -> list[StatedEffect]:
    planned = planned_mde_pp(problems, samples, mean, correlation, changed)
    assert planned is not None
    design = (
        f"{problems} problems x {samples}, mean {100 * mean:g} %, correlation {correlation:g}, "
        f"{100 * changed:g} % changed"
    )
    pairs = partial(pair, np.random.default_rng(0), problems, samples, mean, correlation, changed)
    effects = [min(fraction * planned / 100, 1 - mean) for fraction in _GRID]
    power_E = [_power(pairs, effect, STUDIES if effect == effects[_PLANNED] else STUDIES // 4) for effect in effects]
    results = [StatedEffect(design, "planned", planned, power_E[_PLANNED])]
    for source, effect in (("data without an effect", 0.0), ("data with the effect", effects[_PLANNED])):
        mdes = [compare(*pairs(effect), resamples=1).mde_pp for _ in range(STUDIES // 10)]
        mde_S = np.array([mde for mde in mdes if mde is not None])
        power = float(np.mean(np.interp(mde_S / 100, effects, power_E)))
        results.append(StatedEffect(design, source, float(mde_S.mean()), power))
    return results


def _power(pairs: Callable[[float], tuple[Scores, Scores]], effect: float, studies: int) -> float:
    """The fraction of studies with that true effect whose p-value is at most alpha."""
    p_values = []
    for _ in range(studies):
        baseline, run = pairs(effect)
        difference_P = run.mean_P - baseline.mean_P
        if is_single(baseline):
            p_values.append(mcnemar(int((difference_P > 0).sum()), int((difference_P < 0).sum())))
        else:
            p_values.append(sign_flips(difference_P, RESAMPLES))
    return float(np.mean(np.array(p_values) <= ALPHA))


def main() -> None:
    for effect in stated():
        print(f"  {effect}", flush=True)


if __name__ == "__main__":
    main()
