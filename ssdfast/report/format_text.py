"""The numbers of ``summary.json`` in words: estimates with their intervals, the headline, the figures' rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

CLASSES = ("lock", "fork", "diffuse", "mixed")
LOCK_KINDS = ("strict", "swap", "self_correction")
NBSP = "\u00a0"


@dataclass(frozen=True)
class Metric:
    """A field of a summary entry, and how the page presents it."""

    key: str
    title: str
    note: str
    signed: bool = False
    percent: bool = False


METRICS = (
    Metric("kl_ab", "Movement", "KL(baseline ‖ trained), nats per position"),
    Metric("ssd_share", "Share along self-distillation", "of the movement's variance", percent=True),
    Metric("delta_top1", "Top-1 probability", "trained − baseline", signed=True),
    Metric("delta_entropy", "Entropy", "trained − baseline, nats", signed=True),
    Metric("delta_nucleus", "Nucleus size", "trained − baseline, tokens", signed=True),
    Metric("delta_tail", "Tail mass", "trained − baseline, probability outside the top k", signed=True),
)


def estimate(value: dict[str, float | None], signed: bool = False, percent: bool = False) -> str:
    """A mean and its interval, as in ``+0.012 [0.004, 0.021]``: two digits of its width, at most three of a value."""
    if value["mean"] is None:
        return "not defined"
    scale = 100 if percent else 1
    mean, *ends = (scale * x for x in (value["mean"], value["low"], value["high"]) if x is not None)
    size = max(abs(x) for x in (mean, *ends))
    width = max(ends) - min(ends) if ends else 0.0
    places = _places(size, 3) if width <= 1e-3 * size else min(_places(size, 3), _places(width, 2))
    text = _fixed(mean, places, signed) + (f"{NBSP}%" if percent else "")
    return f"{text} [{', '.join(_fixed(end, places) for end in ends)}]" if ends else text


def told(summary: dict[str, Any]) -> tuple[str, list[str]]:
    """The page's title and the sentences under it, built from the numbers."""
    everything = summary["all"]
    share, alignment, kl = everything["ssd_share"], everything["ssd_alignment"], everything["kl_ab"]
    made_by = ", ".join(f"{count:,} in traces by {label}" for label, count in summary["labels"].items())
    moved = (
        f"The two models were compared at {summary['positions']:,} positions of {summary['traces']:,} traces "
        f"({made_by}). "
    )
    if kl["mean"] is None:
        moved += "The mean KL is not finite: the trained model forbids a token that its baseline allows."
    else:
        moved += f"At an average position the trained model moved {estimate(kl)} nats away from its baseline."
    if summary["invalid"]:
        moved += f" {summary['invalid']:,} positions without finite logits are left out."
    brackets = f"Brackets hold 95{NBSP}% intervals, from resampling whole traces."

    if share["mean"] is None:
        title = "There is no movement that self-distillation could explain"
        why = (
            "Either the two models agree everywhere, or the training samples were drawn at temperature 1 without "
            "truncation, where self-distillation predicts no direction."
        )
        return title, [f"{moved} {why}", brackets]

    away = alignment["high"] is not None and alignment["high"] < 0
    title = f"{100 * share['mean']:.0f}{NBSP}% of the movement lies along what self-distillation predicts"
    title += ", but points away from it" if away else ""
    along = f"{estimate(share, percent=True)} of the movement (its variance) lies along the direction in which "
    along += "self-distillation pushes each position. "
    if alignment["mean"] is not None:
        along += f"The mean alignment is {estimate(alignment, signed=True)}: {_direction(alignment)}."
    read = (
        "The rest is movement that any training on such traces could have made, and a share alone does not tell how "
        "much is unusual: read it beside a control arm, trained on the same prompts at T = 1 without truncation."
    )
    return title, [f"{moved} {along}", f"{read} {brackets}"]


def panels(rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The small multiples: for each metric its rows, each with mean, low, high and the words for them."""
    return [
        {
            "key": metric.key,
            "title": metric.title,
            "note": metric.note,
            "rows": [{"name": name, **estimated(row, metric)} for name, row in rows.items()],
        }
        for metric in METRICS
    ]


def estimated(row: dict[str, Any], metric: Metric) -> dict[str, Any]:
    return {**row[metric.key], "text": estimate(row[metric.key], metric.signed, metric.percent)}


def _direction(alignment: dict[str, float | None]) -> str:
    low, high = alignment["low"], alignment["high"]
    if low is not None and low > 0:
        return "toward the prediction (+1 would be straight along it, −1 straight away)"
    if high is not None and high < 0:
        return "away from the prediction (+1 would be straight along it, −1 straight away)"
    return "no clear direction (+1 would be straight along the prediction, −1 straight away)"


def _fixed(x: float, places: int, signed: bool = False) -> str:
    sign = "+" if signed else ""
    if places > 5:
        text = f"{x:{sign}.1e}".replace("e-0", "e-")
    else:
        text = f"{x:{sign}.{places}f}" if round(x, places) else f"{0:.{places}f}"
    return text.replace("-", "−")


def _places(x: float, digits: int) -> int:
    """Decimal places that show so many significant digits of x, which is not negative."""
    return max(0, digits - 1 - math.floor(math.log10(x))) if x > 0 else digits
