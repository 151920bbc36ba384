"""Stages that depend on one another, run by as many processes and machines as work in one directory.

A stage's directory is named by a hash of its settings and of the stages that it needs, so that a change of one arm runs
that arm again and nothing else. A stage is done when its directory says so; the process that runs it holds its lock.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ... import run_dir
from ...number_format import format_duration
from ...schemas import StageDone

_log = logging.getLogger(__name__)

DONE = "done.json"
_PAUSE = 5.0
"""Seconds between two looks at what other processes have done."""


@dataclass(frozen=True, eq=False)
class Stage:
    """One stage: `kind` and `label` name it, as in ``train ssd-0``.

    settings: the JSON values that decide the result. run: fills the directory that it is given. tokens: the maximum
    number of tokens to sample, train on or probe; 0 where tokens do not decide the time.
    """

    kind: str
    label: str
    settings: dict[str, Any]
    run: Callable[[Path], None]
    needs: tuple[Stage, ...] = ()
    tokens: int = 0
    root: Path = field(default=Path())

    @property
    def name(self) -> str:
        return f"{self.kind} {self.label}".strip()

    @property
    def digest(self) -> str:
        identity = {"kind": self.kind, "settings": self.settings, "needs": [stage.digest for stage in self.needs]}
        # Independent of the study's own path: a file inside the study counts by its place in the study.
        inside = json.dumps(f"{self.root.resolve()}/")[1:-1]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).replace(inside, "").encode()).hexdigest()

    @property
    def directory(self) -> Path:
        return self.root / self.kind / f"{self.label or 'all'}-{self.digest[:10]}"

    @property
    def done(self) -> bool:
        return (self.directory / DONE).exists()

    @property
    def seconds(self) -> float | None:
        """How long the stage took, once it is done."""
        return StageDone.read(self.directory / DONE).seconds if self.done else None


def ordered(targets: Sequence[Stage]) -> list[Stage]:
    """The targets and all that they need, each once (by its directory), after what it needs."""
    stages: dict[Path, Stage] = {}

    def add(stage: Stage) -> None:
        for need in stage.needs:
            add(need)
        stages.setdefault(stage.directory, stage)

    for stage in targets:
        add(stage)
    return list(stages.values())


def run(targets: Sequence[Stage]) -> None:
    """Run what is missing of the targets and of what they need; waits for stages that another process runs."""
    stages = ordered(targets)
    waiting = ""
    while pending := [stage for stage in stages if not stage.done]:
        ready = [stage for stage in pending if all(need.done for need in stage.needs)]
        number = len(stages) - len(pending) + 1
        if any(_try_run(stage, f"stage {number} of {len(stages)}") for stage in ready):
            continue
        if waiting != (waiting := ", ".join(stage.name for stage in ready)):
            _log.info("waiting for another process: %s", waiting)
        time.sleep(_PAUSE)


def _try_run(stage: Stage, number: str) -> bool:
    """Run the stage unless another process runs it; returns whether it is done."""
    try:
        with run_dir.lock(stage.directory.parent / f".{stage.directory.name}"):
            if not stage.done:
                _log.info("%s: %s", number, stage.name)
                start = time.monotonic()
                stage.run(stage.directory)
                StageDone(name=stage.name, seconds=time.monotonic() - start).write(stage.directory / DONE)
    except run_dir.InUse:
        return False
    return True


def untimed_kinds(targets: Sequence[Stage]) -> set[str]:
    """The kinds of stages that are to do, whose time depends on tokens, and of which none has run."""
    stages = ordered(targets)
    timed = {stage.kind for stage in stages if stage.done}
    return {stage.kind for stage in stages if stage.tokens and stage.kind not in timed}


def format_estimate(targets: Sequence[Stage], trial: Mapping[str, float] | None = None) -> str:
    """One line per stage: whether it is done, its maximum of tokens, and how long it took or may take.

    The time of a stage that has not run is estimated from the stages of its kind that have, or else from `trial`: the
    seconds per token of each kind.
    """
    stages = ordered(targets)
    pace = dict(trial or {})
    for kind in _kinds(stages):
        if per_token := _seconds_per_token([stage for stage in stages if stage.kind == kind]):
            pace[kind] = per_token
    width = max(len(stage.name) for stage in stages)
    lines, seconds_left, unknown = [], 0.0, 0
    for stage in stages:
        if stage.done:
            state = f"done, {format_duration(stage.seconds or 0.0)}"
        elif stage.tokens and (per_token := pace.get(stage.kind, 0.0)):
            state = f"to do, at most {format_duration(stage.tokens * per_token)}"
            seconds_left += stage.tokens * per_token
        else:
            state = "to do"
            unknown += stage.tokens > 0
        lines.append(f"{stage.name.ljust(width)}  {f'{stage.tokens:,} tokens' if stage.tokens else '':>20}  {state}")
    missing = sum(not stage.done for stage in stages)
    total = f"{missing} of {len(stages)} stages to do"
    if seconds_left:
        total += f", at most {format_duration(seconds_left)} on one machine"
    if unknown:
        total += f"; no time for {unknown} of them, as no stage of their kind has run yet"
    return "\n".join([*lines, total])


def _kinds(stages: Sequence[Stage]) -> set[str]:
    return {stage.kind for stage in stages}


def _seconds_per_token(stages: Sequence[Stage]) -> float | None:
    """Over the stages that are done."""
    done = [stage for stage in stages if stage.done and stage.tokens]
    tokens = sum(stage.tokens for stage in done)
    return sum(stage.seconds or 0.0 for stage in done) / tokens if tokens else None
