"""The numbers of ``summary.json`` as text: the headline and the rows of the figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..number_format import NBSP, format_interval
from ..schemas import GroupSummary, Interval, ProbeSummary

CLASSES = ("lock", "fork", "diffuse", "mixed")
LOCK_KINDS = ("strict", "top1_changed", "self_correction")


@dataclass(frozen=True)
class Metric:
    """A field of a summary entry, and how the page presents it."""

    key: str
    title: str
    note: str
    signed: bool = False
    percent: bool = False


METRICS = (
    Metric("kl_trained_base", "Shift", "KL(trained ‖ baseline), nats per position"),
    Metric("ssd_variance_fraction", "Fraction along self-distillation", "of the shift's variance", percent=True),
    Metric("delta_top1_prob", "Top-1 probability", "trained − baseline", signed=True),
    Metric("delta_entropy", "Entropy", "trained − baseline, nats", signed=True),
    Metric("delta_nucleus_size", "Nucleus size", "trained − baseline, tokens", signed=True),
    Metric("delta_tail_mass", "Tail mass", "trained − baseline, probability outside the top k", signed=True),
)


def format_summary(summary: ProbeSummary) -> tuple[str, list[str]]:
    """The page's title and the sentences under it, built from the numbers."""
    everything = summary.all
    fraction, alignment = everything.ssd_variance_fraction, everything.ssd_alignment
    kl = everything.kl_trained_base
    sources = ", ".join(f"{count:,} in traces by {source}" for source, count in summary.trace_sources.items())
    shift = (
        f"The two models were compared at {summary.positions:,} positions of {summary.traces:,} traces ({sources}). "
    )
    if kl.value is None:
        shift += "The mean KL is not finite: the trained model allows a token that its baseline forbids."
    else:
        shift += f"The mean shift, KL(trained ‖ baseline), is {format_interval(kl)} nats per position."
    if summary.invalid:
        shift += f" {summary.invalid:,} positions without finite logits are left out."
    brackets = f"Brackets hold 95{NBSP}% intervals, from resampling whole traces."

    if fraction.value is None:
        title = "There is no shift that self-distillation could explain"
        reason = (
            "Either the two models agree everywhere, or the training samples were drawn at temperature 1 without "
            "truncation, where self-distillation predicts no direction."
        )
        return title, [f"{shift} {reason}", brackets]

    away = alignment.ci_high is not None and alignment.ci_high < 0
    title = f"{100 * fraction.value:.0f}{NBSP}% of the shift lies along what self-distillation predicts"
    title += ", but points away from it" if away else ""
    along = f"{format_interval(fraction, percent=True)} of the shift (its variance) lies along the direction in which "
    along += "self-distillation pushes each position. "
    if alignment.value is not None:
        along += (
            "The mean alignment, the correlation of the shift with that direction, is "
            f"{format_interval(alignment, signed=True)}: {_direction(alignment)}."
        )
    control = (
        "Any training on such traces could have caused the rest. The fraction alone does not show how much is unusual: "
        "compare it with a control arm, trained on the same prompts at T = 1 without truncation."
    )
    return title, [f"{shift} {along}", f"{control} {brackets}"]


def panels(rows: dict[str, GroupSummary]) -> list[dict[str, Any]]:
    """The small multiples: for each metric its rows, each with value, ci_low, ci_high and their text."""
    return [
        {
            "key": metric.key,
            "title": metric.title,
            "note": metric.note,
            "rows": [{"name": name, **interval_with_text(row, metric)} for name, row in rows.items()],
        }
        for metric in METRICS
    ]


def interval_with_text(row: GroupSummary, metric: Metric) -> dict[str, Any]:
    interval: Interval = getattr(row, metric.key)
    return {**interval.to_json(), "text": format_interval(interval, metric.signed, metric.percent)}


def _direction(alignment: Interval) -> str:
    low, high = alignment.ci_low, alignment.ci_high
    if low is not None and low > 0:
        return "toward the prediction (+1 is straight along it, −1 straight away)"
    if high is not None and high < 0:
        return "away from the prediction (+1 is straight along it, −1 straight away)"
    return "no clear direction (+1 is straight along the prediction, −1 straight away)"
