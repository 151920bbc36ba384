"""The claims about memory plans: what fits 80 GB, and how far a plan is from a real step."""

from __future__ import annotations

from collections.abc import Iterator

from claim import Claim
from plan import GB, errors

from ssdfast.config import PlanConfig
from ssdfast.training.planning.plan import plan


def claims() -> Iterator[Claim]:
    for model in ("qwen3-4b", "qwen3.5-4b"):
        for point in plan(PlanConfig(model=model, seq_lengths=(32768, 49152), compare_settings=False)):
            length = point.seq_length
            what = f"planned peak of {model}, fp32 AdamW, {length:,} tokens, activation checkpointing and tiles"
            yield Claim(what, point.peak / GB, 80, "GB")
    worst = 0.0
    for what, planned, measured in errors():
        print(f"     {what}: planned {planned / GB:.3f} GB, measured {measured / GB:.3f} GB")
        worst = max(worst, abs(planned / measured - 1))
    yield Claim(
        "largest error of a planned peak against the resident memory of a real step on a CPU", 100 * worst, 10, "%"
    )
