"""What shifted each arm of a study: its probes against one baseline, compared with a control arm.

    arms = {"ssd": [Path("probes/ssd-0"), Path("probes/ssd-1")], "control": [Path("probes/control-0")]}
    print(attribute(arms, control="control").arms["ssd"].verdict.text)

It computes on the tables of the probes; no model is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..schemas import AttributionResults
from . import position_groups
from .arm_stats import arm_stats, describe_groups, describe_shift
from .contrasts import compare_with_control
from .load_probes import ArmProbe, concat, read_probes
from .mixture_model import Shift
from .power import component_tests
from .single_component_fits import single_component_fits
from .verdict import verdict
from .verdict_rules import Design

_SINGLE_FIT_POSITIONS = 50_000
"""of all seeds of an arm: one component fitted to all classes of positions at once needs no more"""


def attribute(arms: Mapping[str, Sequence[Path]], control: str) -> AttributionResults:
    """The statistics of every arm and a verdict for each but the control. None where undefined.

    arms: for each the run directories of its probes, one per seed of its training; all probes with one baseline, the
    same settings (`train_sampling` that of the self-distillation arm) and the same traces. control: the arm trained on
    samples at T = 1 without truncation.
    Raises ValueError for a control that is not an arm, for an arm without a probe, for probes that are unfinished or do
    not fit together, and for fewer than 2 problems.
    """
    if control not in arms:
        raise ValueError(f"the control {control!r} is not an arm: the arms are {', '.join(arms)}")
    if empty := [name for name, directories in arms.items() if not directories]:
        raise ValueError(f"the arm {empty[0]!r} has no probe: name at least one run directory")
    probes = _load({name: [Path(directory) for directory in directories] for name, directories in arms.items()})
    first = probes[control][0]
    problems = len({trace.problem_id for trace in first.traces})
    if problems < 2:
        raise ValueError(
            f"intervals come from the variance between problems, and the probes have {problems} in common: probe at"
            " least 2"
        )
    names = position_groups.names(first.probe.token_classes)
    train_sampling = first.probe.settings.train_sampling
    with np.errstate(all="ignore"):  # infinite KLs and empty groups end as None
        stats = arm_stats(probes)
        comparisons = compare_with_control(stats, control, names)
        entries: dict[str, Any] = {}
        for name, arm in stats.items():
            shift = describe_shift(arm)
            shift["single_component_fits"] = single_component_fits(_positions(arm.seeds), train_sampling)
            entries[name] = {
                "seeds": len(arm.seeds),
                "invalid": sum(arm_probe.invalid for arm_probe in arm.seeds),
                "failed": sum(arm_probe.probe.failed for arm_probe in arm.seeds),
                "shift": shift,
                "by_group": describe_groups(arm, names),
            }
            if name != control:
                entries[name]["vs_control"] = comparisons[name]
                design = Design(len(arm.seeds), len(probes[control]), problems, component_tests(len(stats)))
                entries[name]["verdict"] = verdict(name, control, design, shift, comparisons[name], train_sampling)
    results = {
        "control": control,
        "settings": first.probe.settings.to_json(),
        "traces": len(first.traces),
        "problems": problems,
        "arms": entries,
    }
    return AttributionResults.model_validate(results)


def _positions(seeds: Sequence[ArmProbe]) -> Shift:
    """All positions of all seeds, or a sample of at most `_SINGLE_FIT_POSITIONS`."""
    positions = sum(len(arm_probe.trace_N) for arm_probe in seeds)
    step = max(1, math.ceil(positions / _SINGLE_FIT_POSITIONS))
    return concat([arm_probe.positions(slice(i % step, None, step)) for i, arm_probe in enumerate(seeds)])


def _load(arms: Mapping[str, Sequence[Path]]) -> dict[str, list[ArmProbe]]:
    probes = iter(read_probes([directory for directories in arms.values() for directory in directories]))
    return {name: [next(probes) for _ in directories] for name, directories in arms.items()}
