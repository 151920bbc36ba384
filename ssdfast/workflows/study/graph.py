"""Stages that wait for one another, run by as many processes and machines as there are in one directory.

A stage's directory is named by a hash of its settings and of the stages that it needs, so that a change of one arm runs
that arm again and nothing else. A stage is done when its directory says so; who runs it holds its lock.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ... import run_dir
from ...progress import say

DONE = "done.json"
_PAUSE = 5.0
"""seconds before another look at what other processes have done"""


@dataclass(frozen=True, eq=False)
class Stage:
    """name: kind and what it is of, as ``train ssd-0``. settings: JSON values that decide what comes out.
    run: fills the directory that it is given. tokens: at most, to sample, train on or probe; 0 where nobody counts."""

    kind: str
    what: str
    settings: dict[str, Any]
    run: Callable[[Path], None]
    needs: tuple[Stage, ...] = ()
    tokens: int = 0
    root: Path = field(default=Path())

    @property
    def name(self) -> str:
        return f"{self.kind} {self.what}".strip()

    @property
    def digest(self) -> str:
        made_of = {"kind": self.kind, "settings": self.settings, "needs": [stage.digest for stage in self.needs]}
        # The same wherever the study lies and however it is named: what is inside of it goes by its place there.
        inside = json.dumps(f"{self.root.resolve()}/")[1:-1]
        return hashlib.sha256(json.dumps(made_of, sort_keys=True).replace(inside, "").encode()).hexdigest()

    @property
    def directory(self) -> Path:
        return self.root / self.kind / f"{self.what or 'all'}-{self.digest[:10]}"

    @property
    def done(self) -> bool:
        return (self.directory / DONE).exists()

    @property
    def seconds(self) -> float | None:
        """That it took, once it is done."""
        return float(run_dir.read_json(self.directory / DONE)["seconds"]) if self.done else None


def ordered(wanted: Sequence[Stage]) -> list[Stage]:
    """These and all that they need, each once (by its directory), after what it needs."""
    found: dict[Path, Stage] = {}

    def add(stage: Stage) -> None:
        for need in stage.needs:
            add(need)
        found.setdefault(stage.directory, stage)

    for stage in wanted:
        add(stage)
    return list(found.values())


def run(wanted: Sequence[Stage]) -> None:
    """Run what is missing of these and of what they need; waits for what another process runs meanwhile."""
    todo = ordered(wanted)
    waiting = ""
    while todo := [stage for stage in todo if not stage.done]:
        ready = [stage for stage in todo if all(need.done for need in stage.needs)]
        if any(_taken(stage, len(todo)) for stage in ready):
            continue
        if waiting != (waiting := ", ".join(stage.name for stage in ready)):
            say(f"waiting for another process: {waiting}")
        time.sleep(_PAUSE)


def _taken(stage: Stage, left: int) -> bool:
    """Run it, unless another process does."""
    try:
        with run_dir.lock(stage.directory.parent / f".{stage.directory.name}"):
            if not stage.done:
                say(f"{stage.name} ({left} stages left)")
                begun = time.monotonic()
                stage.run(stage.directory)
                run_dir.write_json(stage.directory / DONE, {"name": stage.name, "seconds": time.monotonic() - begun})
    except run_dir.InUse:
        return False
    return True


def plan(wanted: Sequence[Stage]) -> str:
    """A line a stage: whether it is done, tokens at most, and how long it took, or may take at the pace of its like."""
    stages = ordered(wanted)
    pace = {kind: _pace([stage for stage in stages if stage.kind == kind]) for kind in {s.kind for s in stages}}
    width = max(len(stage.name) for stage in stages)
    lines, left, unknown = [], 0.0, 0
    for stage in stages:
        if stage.done:
            told = f"done, {_clock(stage.seconds or 0.0)}"
        elif stage.tokens and (seconds := pace[stage.kind]):
            told = f"to do, at most {_clock(stage.tokens * seconds)}"
            left += stage.tokens * seconds
        else:
            told = "to do"
            unknown += stage.tokens > 0
        lines.append(f"{stage.name.ljust(width)}  {f'{stage.tokens:,} tokens' if stage.tokens else '':>20}  {told}")
    missing = sum(not stage.done for stage in stages)
    told = f"{missing} of {len(stages)} stages to do"
    if left:
        told += f", at most {_clock(left)} on one machine"
    if unknown:
        told += f"; {unknown} of a kind that has not run yet, whose time nobody knows"
    return "\n".join([*lines, told])


def _pace(stages: Sequence[Stage]) -> float | None:
    """Seconds a token of those that are done."""
    done = [stage for stage in stages if stage.done and stage.tokens]
    tokens = sum(stage.tokens for stage in done)
    return sum(stage.seconds or 0.0 for stage in done) / tokens if tokens else None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
