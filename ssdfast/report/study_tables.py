"""The models of a study for its page: arms, accuracy, diagnostics, training and filters, as tables and charts.

A table is ``{"head": [...], "rows": [[...]]}`` of texts, with `words` the columns that are not numbers; a chart has
series of points [x, y] or [x, y, low, high]; `model` names whose colour a row or a series has.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..number_format import NBSP, format_interval, format_p_value, format_percent
from ..schemas import DescribedTraces, Interval, LengthSummary, StepMetrics
from .study import Study, Training
from .study_text import format_category

_POINTS = 300
"""of a line; longer ones are averaged over steps"""
_METRICS = (
    ("loss", "Loss", "nats per completion token", False),
    ("grad_norm", "Gradient norm", "before clipping", True),
    ("frac_weights_changed", "Weights changed", "% per step", False),
    ("noise", "Noise over signal", "of the gradient; above 100 a step is mostly noise", True),
)


def arms_table(study: Study) -> dict[str, Any]:
    head = ["arm", "training samples", "seeds", "traces", "correct among them", "last loss", "shift, nats", "verdict"]
    rows = []
    for arm in study.arms:
        trainings = _arm_trainings(study, arm)
        entry = study.attribution.arms[arm]
        selected = [training.selection.selected for training in trainings]
        fractions = [selection.correct_fraction for selection in selected if selection.correct_fraction is not None]
        losses = [line.loss for training in trainings for line in training.metrics[-1:] if line.loss is not None]
        rows.append(
            [
                arm,
                trainings[0].learns_from,
                ", ".join(str(training.seed) for training in trainings),
                " + ".join(f"{selection.traces:,}" for selection in selected),
                format_percent(sum(fractions) / len(fractions)) if fractions else "–",
                f"{sum(losses) / len(losses):.3f}" if losses else "–",
                format_interval(entry.shift.kl_trained_base),
                format_category(entry.verdict) if entry.verdict else "the control",
            ]
        )
    return {"head": head, "rows": rows, "models": study.arms, "words": [1, 7]}


def accuracy(study: Study) -> dict[str, Any]:
    """A chart against the temperature of evaluation where it was swept, or else a row per model."""
    runs = study.results.runs
    values = {"label": "accuracy, %", "title": "Accuracy", "note": f"of {study.results.problems:,} problems"}
    if len({run.temperature for run in runs}) < 2:
        rows = [_interval_row(run.checkpoint, run.accuracy) for run in runs]
        return {"rows": rows, **values}
    series: dict[str, list[list[float | None]]] = {}
    for run in sorted(runs, key=lambda run: run.temperature or 0.0):
        interval = run.accuracy
        ends = (interval.value, interval.ci_low, interval.ci_high)
        point = [run.temperature, *map(_hundred, ends)]
        series.setdefault(run.checkpoint, []).append(point)
    return {
        "chart": {
            **values, "x": "sampling temperature",
            "series": [{"name": name, "model": name, "points": points} for name, points in series.items()],
        }
    }  # fmt: skip


def comparisons(study: Study) -> dict[str, Any]:
    """Every run of every trained model against the baseline's best run."""
    head = [
        "model", "difference from the baseline, percentage points", "p-value", "p-value, Holm",
        "minimum detectable effect, percentage points", "discordant problems",
    ]  # fmt: skip
    comparisons = sorted(study.results.comparisons, key=lambda comparison: not comparison.is_best_run)
    rows = []
    for comparison in comparisons:
        best = " (its best)" if comparison.is_best_run and len(comparisons) > len(study.trainings) else ""
        rows.append(
            [
                comparison.run + best,
                format_interval(comparison.difference_pp, signed=True),
                format_p_value(comparison.p_value),
                format_p_value(comparison.p_value_holm),
                "–" if comparison.mde_pp is None else f"{comparison.mde_pp:.1f}",
                f"{comparison.num_discordant:,} of {comparison.problems:,}",
            ]
        )
    models = [_checkpoint(study, comparison.run) for comparison in comparisons]
    return {"head": head, "rows": rows, "models": models}


def diagnostics(study: Study) -> dict[str, Any]:
    head = [
        "run", "answered", "thinking closed", "truncated", "loops", "repetition", "length, median (quartiles)",
        "correct: median length", "incorrect: median length",
    ]  # fmt: skip
    rates = ("think_closed_rate", "truncation_rate", "loop_rate", "repetition")
    rows = []
    for run in study.results.runs:
        values = run.diagnostics
        length = values.length.all
        rows.append(
            [
                run.name,
                format_percent(values.answer_rate.value),
                *(format_percent(getattr(values, name)) for name in rates),
                f"{length.p50:,.0f} ({length.p25:,.0f}-{length.p75:,.0f}) {values.length.unit}",
                _median(values.length.correct),
                _median(values.length.incorrect),
            ]
        )
    return {"head": head, "rows": rows, "models": [run.checkpoint for run in study.results.runs]}


def training_charts(study: Study) -> list[dict[str, Any]]:
    charts = []
    for key, title, note, logarithmic in _METRICS:
        series = []
        for training in study.trainings:
            points = [(line.step, value) for line in training.metrics if (value := _metric(line, key)) is not None]
            if points:
                series.append({"name": training.label, "model": training.label, "points": _averaged(points)})
        if series:
            charts.append({"title": title, "note": note, "x": "step", "log": logarithmic, "series": series})
    return charts


def filters(study: Study) -> dict[str, Any]:
    """The traces of the first training of each arm: as sampled, and as selected for training."""
    head = [
        "arm", "sampled", "after the filter", "trained on", "completion tokens", "median length", "truncated",
        "correct",
    ]  # fmt: skip
    rows, shapes = [], {}
    for arm in study.arms:
        selection = _arm_trainings(study, arm)[0].selection
        sampled, selected = selection.sampled, selection.selected
        rows.append(
            [
                arm,
                *(f"{traces.traces:,}" for traces in (sampled, selection.filtered, selected)),
                *_pair(sampled.completion_tokens, selected.completion_tokens, "{:,}"),
                *_pair(sampled.median_length, selected.median_length, "{:,.0f}"),
                *_pair(_truncated(sampled), _truncated(selected), "{:.1f}" + NBSP + "%"),
                *_pair(_hundred(sampled.correct_fraction), _hundred(selected.correct_fraction), "{:.1f}" + NBSP + "%"),
            ]
        )
        shapes[arm] = [
            {"title": title, "rows": _fractions(getattr(sampled, key), getattr(selected, key), words)}
            for key, title, words in (
                ("by_length_up_to", "Length, tokens", lambda name: f"to {int(name):,}"),
                ("by_difficulty", "Difficulty", str),
                ("by_correct", "Correct", str),
                ("by_finish_reason", "End", str),
            )
        ]
    return {"table": {"head": head, "rows": rows, "models": study.arms}, "shapes": shapes}


def _median(lengths: LengthSummary | None) -> str:
    return "–" if lengths is None else f"{lengths.p50:,.0f}"


def _arm_trainings(study: Study, arm: str) -> list[Training]:
    return [training for training in study.trainings if training.arm == arm]


def _checkpoint(study: Study, name: str) -> str:
    """The checkpoint of a run of the evaluation."""
    return next(run.checkpoint for run in study.results.runs if run.name == name)


def _interval_row(name: str, interval: Interval) -> dict[str, Any]:
    ends = {key: _hundred(getattr(interval, key)) for key in ("value", "ci_low", "ci_high")}
    return {"name": name, "model": name, **ends, "text": format_interval(ends)}


def _metric(line: StepMetrics, key: str) -> float | None:
    value: float | None = line.noise_ratio if key == "noise" else getattr(line, key)
    return 100 * value if value is not None and key == "frac_weights_changed" else value


def _averaged(points: list[tuple[int, float]]) -> list[list[float]]:
    """At most _POINTS of them, each a mean over neighbouring steps."""
    width = -(-len(points) // _POINTS)
    groups = [points[i : i + width] for i in range(0, len(points), width)]
    return [
        [sum(x for x, _ in group) / len(group), float(f"{sum(y for _, y in group) / len(group):.5g}")]
        for group in groups
    ]


def _fractions(sampled: dict[str, int], selected: dict[str, int], words: Any) -> list[dict[str, Any]]:
    names: Iterable[str] = dict.fromkeys([*sampled, *selected])
    if all(name.isdigit() for name in names):
        names = sorted(names, key=int)
    totals = [sum(counts.values()) or 1 for counts in (sampled, selected)]
    return [
        {
            "name": words(name),
            "sampled": sampled.get(name, 0) / totals[0],
            "selected": selected.get(name, 0) / totals[1],
        }
        for name in names
    ]


def _truncated(description: DescribedTraces) -> float | None:
    """% of the traces that the model did not end itself."""
    if not description.traces:
        return None
    return 100 * (1 - description.by_finish_reason.get("stop", 0) / description.traces)


def _pair(before: float | None, after: float | None, form: str) -> list[str]:
    words = ["–" if value is None else form.format(value) for value in (before, after)]
    return [words[0] if words[0] == words[1] else f"{words[0]} → {words[1]}"]


def _hundred(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction
