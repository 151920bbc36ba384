"""What moved each arm of a study: its probes against one baseline, read beside a control arm.

    arms = {"ssd": [Path("probes/ssd-0"), Path("probes/ssd-1")], "control": [Path("probes/control-0")]}
    print(attribute(arms, control="control")["arms"]["ssd"]["verdict"]["text"])

Arithmetic over the Parquet parts: no model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import position_groups
from .arm_stats import arms_of, movement, pooled
from .contrasts import against_control
from .load_probes import Collected, collect, joined
from .resampling import RESAMPLES
from .single_component_fits import alternatives
from .verdict import verdict


def attribute(arms: Mapping[str, Sequence[Path]], control: str, seed: int = 0) -> dict[str, Any]:
    """The numbers of every arm and a verdict for each but the control. Strict JSON, None where undefined.

    arms: of each the run directories of its probes, one a seed of its training; all probes with one baseline, one set
    of settings (`train` that of the self-distillation arm) and the same traces. control: the arm trained on samples at
    T = 1 without truncation. seed: of the resamples.
    Raises ValueError for a control that is no arm, for an arm without a probe, for probes that are unfinished or do not
    fit together, and for less than 2 problems.
    """
    if control not in arms:
        raise ValueError(f"the control {control!r} is none of the arms {', '.join(arms)}: name one of them")
    if empty := [name for name, directories in arms.items() if not directories]:
        raise ValueError(f"the arm {empty[0]!r} has no probe: name at least one run directory")
    collected = _collected({name: [Path(one) for one in directories] for name, directories in arms.items()})
    first = collected[control][0]
    problems = len({trace.problem_id for trace in first.traces})
    if problems < 2:
        raise ValueError(f"the probes share {problems} problem, intervals come from drawing problems: probe at least 2")
    names = position_groups.names(first.probe.class_names)
    with np.errstate(all="ignore"):  # infinite KLs and empty sets end as None
        found = arms_of(collected, seed)
        beyond = against_control(found, control, names, seed)
        described: dict[str, Any] = {}
        for name, arm in found.items():
            moved = movement(arm)
            everything = joined([one.moved for one in arm.seeds])
            moved["alternatives"] = alternatives(everything, first.probe.settings["train"])
            described[name] = {
                "seeds": len(arm.seeds),
                "invalid": sum(one.invalid for one in arm.seeds),
                "failed": sum(one.probe.failed for one in arm.seeds),
                "movement": moved,
                "pooled": pooled(arm, names),
            }
            if name != control:
                described[name]["against_control"] = beyond[name]
                described[name]["verdict"] = verdict(name, control, moved, beyond[name])
    return {
        "control": control,
        "settings": first.probe.settings,
        "traces": len(first.traces),
        "problems": problems,
        "resamples": RESAMPLES,
        "seed": seed,
        "arms": described,
    }


def _collected(arms: Mapping[str, Sequence[Path]]) -> dict[str, list[Collected]]:
    probes = iter(collect([directory for directories in arms.values() for directory in directories]))
    return {name: [next(probes) for _ in directories] for name, directories in arms.items()}
