"""What any process does that makes parts of a probe: lay out the work, make parts, write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .. import models
from ..config import ExecutionConfig, ProbeConfig
from ..run_dir import RunError
from ..sharded_table import Notes, Parts
from .model_loading import Prober
from .plan import make_plan
from .token_classes import classify

# So many traces that fail, and none that does not, are no accident of a trace.
_HOPELESS = 8


def parts_of(config: ProbeConfig, out: Path) -> Parts:
    return Parts(config.parts or str(out.resolve() / "probe"))


def prepare(config: ProbeConfig, execution: ExecutionConfig, out: Path) -> Prober:
    """What a process needs to make parts. The models are not loaded yet."""
    a, b = models.outline(config.baseline), models.outline(config.trained)
    plan = make_plan(config, a, b)
    classes = classify(a.tokenizer, plan.texts, config.token_classes)
    return Prober(plan, a, b, classes, execution, out / "spill")


def run_parts(prober: Prober, parts: Parts, indices: list[int], advance: Callable[[int], object]) -> None:
    """Make and write some parts. Raises RunError where the models fail on the first traces, all of them."""
    if not indices:
        return
    scored = failures = 0
    for index, table, failed in prober.parts(indices, advance):
        failures += len(failed)
        scored += sum(map(len, prober.plan.parts[index])) - len(failed)
        if failures >= _HOPELESS and not scored:
            raise RunError(f"the models failed on all of the first {failures} traces: {failed[0]['reason']}")
        parts.write(index, table, Notes(prober.plan.fingerprint(index), tuple(failed)))
