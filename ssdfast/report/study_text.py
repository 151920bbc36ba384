"""What the page of a study says in words: its title, its first sentences, names of measures and parts."""

from __future__ import annotations

from typing import Any

from .format_text import Metric, estimate
from .study import Study

PARTS = {
    "ssd": "self-distillation",
    "temperature": "a temperature",
    "ending": "a bias to end",
    "drift": "drift",
}
CATEGORIES = PARTS | {"mixture": "a mixture", "none": "no effect"}

MEASURES = {
    one.key: one
    for one in (
        Metric("kl_ba", "Movement", "KL(trained ‖ baseline), nats a position"),
        Metric("kl_ab", "Movement, the other way", "KL(baseline ‖ trained), nats a position"),
        Metric("ssd_share", "Share along self-distillation", "of the movement's variance, either way", percent=True),
        Metric("ssd_alignment", "Alignment", "mean correlation with the prediction", signed=True),
        Metric("ssd_strength", "Strength", "s, if the model were (1 − s) baseline + s q", signed=True),
        Metric("compression", "Support compression", "first term of the loss, trained − baseline, nats", signed=True),
        Metric("reshaping", "Reshaping in the support", "second term, trained − baseline, nats", signed=True),
        Metric("head_alignment", "Alignment of the head", "third term, trained − baseline, nats", signed=True),
        Metric("tempering", "Tempering", "E[log p of the baseline], trained − baseline, nats", signed=True),
        Metric("ending", "Ending", "probability to end, trained − baseline", signed=True),
    )
}
SETS = {
    "class": "By class of position",
    "token_class": "By class of the token",
    "to_think_end": "By tokens to the end of thinking",
    "correct": "By correctness of the trace",
}


def title(attribution: dict[str, Any]) -> str:
    """The verdicts in a line."""
    verdicts = {name: arm["verdict"]["category"] for name, arm in attribution["arms"].items() if "verdict" in arm}
    kinds = set(verdicts.values())
    if kinds == {"none"}:
        return f"No arm moved in a way that {attribution['control']} did not"
    if not verdicts:
        return "A control alone: there is nothing to compare it with"
    return " · ".join(f"{name}: {CATEGORIES[category]}" for name, category in verdicts.items())


def lead(study: Study) -> list[str]:
    """The sentences under the title."""
    found = study.attribution
    trainings = len(study.trainings)
    positions = next(one["positions"] for one in found["arms"][study.control]["pooled"] if one["kind"] == "all")
    control = found["arms"][study.control]["movement"]["kl"]
    return [
        f"{trainings} trained models of {len(study.arms)} arms were compared with one baseline at {positions:,} "
        f"positions of {found['traces']:,} answers that the baseline gave to {found['problems']:,} problems. "
        f"The arm {study.control}, trained on the same prompts at temperature 1 without truncation, moved "
        f"{estimate(control)} nats a position; what another did beyond that is what has to be explained.",
        "Brackets hold 95\u00a0% intervals, from drawing problems"
        + (" and trainings" if trainings > len(study.arms) else "")
        + " again. What would turn each verdict stands at its end.",
    ]
