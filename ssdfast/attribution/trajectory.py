"""The shift of the checkpoints of a training, step by step: which component came first, and which later.

Every checkpoint is fitted by itself, as one training of an arm. Changes from one checkpoint to the next are differences
on the same problems, whose intervals are narrower than those of the checkpoints themselves.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..schemas import ProbeSummary, Trajectory, read_metrics
from .arm_stats import ArmStats, arm_stats
from .estimates import Interval, intervals, mean, variance
from .fits import KL, PARAMETERS, PARTS, RESIDUAL
from .load_probes import read_probes
from .mixture_model import COMPONENTS

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_STRENGTH = PARAMETERS.start + COMPONENTS.index("ssd")


class Checkpoint(NamedTuple):
    """A model of a training run at one of its steps."""

    training: Path
    step: int


def checkpoint(trained: str) -> Checkpoint | None:
    """What the path of a model says: ``RUN/train/checkpoints/checkpoint-STEP`` (or any directory of that name), or
    ``RUN/train/model``, whose step is the last of its metrics; None for any other."""
    path = Path(trained).resolve()
    if match := _CHECKPOINT.fullmatch(path.name):
        run = path.parent.parent.parent if path.parent.parent.name == "train" else path.parent
        return Checkpoint(run, int(match[1]))
    metrics = path.parent / "metrics.jsonl"
    if path.name == "model" and path.parent.name == "train" and metrics.exists():
        return Checkpoint(path.parent.parent, max((step.step for step in read_metrics(metrics)), default=0))
    return None


def trajectory(probes: Mapping[str, Path]) -> Trajectory | None:
    """The trajectories of the probes, by the names of their models, of each training with two or more checkpoints; None
    where there is none.

    Raises ValueError for probes that do not fit together or cannot be attributed, and for fewer than 2 problems.
    """
    summaries = {name: ProbeSummary.read(directory / "summary.json") for name, directory in probes.items()}
    known = {name: checkpoint(summary.settings.trained) for name, summary in summaries.items()}
    trainings = Counter(where.training for where in known.values() if where)
    steps = {name: where for name, where in known.items() if where and trainings[where.training] > 1}
    if not steps:
        return None
    same_name = Counter(training.name for training in {where.training for where in steps.values()})
    names = sorted(steps, key=lambda name: (*steps[name], name))
    loaded = read_probes([probes[name] for name in names])
    problems = len({trace.problem_id for trace in loaded[0].traces})
    if problems < 2:
        raise ValueError("intervals come from the variance between problems, and there is one: probe at least 2")
    points = []
    before: tuple[Path, ArmStats] | None = None
    with np.errstate(all="ignore"):  # infinite KLs and empty groups end as None
        stats = arm_stats({name: [probe] for name, probe in zip(names, loaded, strict=True)})
        for name in names:
            training, step = steps[name]
            own = stats[name].fit_estimates
            values = intervals(mean(own), variance(own))
            earlier = before[1] if before and before[0] == training else None
            points.append(
                {
                    "model": name,
                    "training": training.name if same_name[training.name] == 1 else str(training),
                    "step": step,
                    "kl_trained_base": values[KL],
                    "by_position_class": {
                        group: entry.kl_trained_base.to_json()
                        for group, entry in summaries[name].by_position_class.items()
                    },
                    "components": _components(values),
                    "since_previous": _components(_change(stats[name], earlier)) if earlier else _components(values),
                    "ssd_strength": values[_STRENGTH],
                }
            )
            before = training, stats[name]
    return Trajectory.model_validate({"points": points, "problems": problems})


def _change(arm: ArmStats, earlier: ArmStats) -> list[Interval]:
    difference_X = mean(arm.fit_estimates) - mean(earlier.fit_estimates)
    return intervals(difference_X, variance(arm.fit_estimates, earlier.fit_estimates))


def _components(values: list[Interval]) -> dict[str, Interval]:
    return dict(zip((*COMPONENTS, RESIDUAL), values[PARTS], strict=True))
