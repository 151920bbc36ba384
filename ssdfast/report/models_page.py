"""The page of a probe of several trained models: all models side by side, their trajectory, and the trace browser."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..manifest import read_manifest
from ..number_format import NBSP, format_interval
from ..run_dir import write_text
from ..schemas import COMPONENT_TITLES, Interval, ProbeSummary, Trajectory
from .format_text import CLASSES, METRICS, interval_with_text, panels
from .html_page import assemble, fill, headline, paragraphs, provenance
from .page_data import browser_data, browser_settings, read_source, read_summary, vocabulary_texts
from .page_traces import embed
from .sanitize import inert_record
from .terms import all_terms

# Tones and marks go by the place in this list, in turns of six: classes have those of the components.
_LINES = (*COMPONENT_TITLES.values(), *[""] * (6 - len(COMPONENT_TITLES)), *CLASSES)


def write_models(run_dir: Path, directories: Mapping[str, Path]) -> Path:
    """Write ``run_dir/report.html`` and return its path. It is below 10 MB, opens from disk and loads nothing.

    Raises ValueError where an input is missing or broken.
    """
    summaries = {name: read_summary(directory) for name, directory in directories.items()}
    sources = [read_source(directory, summaries[name], name) for name, directory in directories.items()]
    embedded = embed(sources, vocabulary_texts(next(iter(directories.values()))))
    summaries = {name: inert_record(summary) for name, summary in summaries.items()}
    file = run_dir / "trajectory.json"
    trajectory = inert_record(Trajectory.read(file)) if file.exists() else None
    first = next(iter(summaries.values()))
    shown, total = len(embedded.traces) // len(sources), len(sources[0].files)
    sample = f"All {total:,} traces" if shown == total else f"{shown:,} of {total:,} traces, from all trace sources"
    data = {
        "models": _models_table(summaries),
        "groups": [{"name": name, "panels": _panels(summary)} for name, summary in summaries.items()],
        "study": {"arms": [{"name": name} for name in _LINES] if trajectory else []},
        "trajectory": trajectory and {"charts": _charts(trajectory), "changes": _changes(trajectory)},
        "settings": {"trained": {name: summary.settings.trained for name, summary in summaries.items()}}
        | {name: value for name, value in first.settings.model_dump(mode="json").items() if name != "trained"},
        **browser_data(embedded),
        "browser": {
            **browser_settings(embedded, sources[0]),
            "sample": f"{sample}, each under every trained model. The figures above use all traces.",
            "every": None,
            "compare": True,
        },
    }
    pieces = {
        "headline": headline(_title(summaries)),
        "sentences": paragraphs(_sentences(summaries)),
        **all_terms(),
        "provenance": provenance(read_manifest(run_dir)),
        "trajectory": fill("trajectory.html", all_terms()) if trajectory else "",
        "browser": fill("browser.html", {"label": "Trained model", **all_terms()}),
        "reference": fill("reference.html", {"stage": "probe"}),
    }
    path = run_dir / "report.html"
    scripts = ["page_plots.js", "page_models.js"]
    write_text(path, assemble(run_dir.resolve().name, fill("models.html", pieces), scripts, data))
    return path


def _title(summaries: Mapping[str, ProbeSummary]) -> str:
    shifts = {name: kl for name, s in summaries.items() if (kl := s.all.kl_trained_base.value) is not None}
    count = f"{len(summaries)} trained model{'s' if len(summaries) > 1 else ''}"
    if not shifts:
        return f"{count} beside one baseline: no shift is finite"
    low, high = (chosen(shifts, key=lambda name: shifts[name]) for chosen in (min, max))
    if low == high:
        return f"{high} shifted by {shifts[high]:.2g} nats per position"
    return f"{count}: the shift is from {shifts[low]:.2g} ({low}) to {shifts[high]:.2g} ({high}) nats per position"


def _sentences(summaries: Mapping[str, ProbeSummary]) -> list[str]:
    first = next(iter(summaries.values()))
    origins = dict.fromkeys(summary.train_sampling_origin for summary in summaries.values())
    failed = {name: len(summary.failed) for name, summary in summaries.items() if summary.failed}
    left_out = ", ".join(f"{count:,} under {name}" for name, count in failed.items())
    return [
        f"All models were compared with one baseline at {first.positions:,} positions of {first.traces:,} traces."
        f" Brackets hold 95{NBSP}% intervals, from resampling whole traces.",
        *([f"Traces that a model failed on are left out: {left_out}."] if failed else []),
        *(origin for origin in origins if origin),
    ]


def _models_table(summaries: Mapping[str, ProbeSummary]) -> dict[str, Any]:
    head = ["model", *(f"{metric.title.lower()}, {metric.note}" for metric in METRICS)]
    rows = [
        [name, *(interval_with_text(summary.all, metric)["text"] for metric in METRICS)]
        for name, summary in summaries.items()
    ]
    return {"head": head, "rows": rows}


def _panels(summary: ProbeSummary) -> list[dict[str, Any]]:
    return panels({"all": summary.all, **{name: summary.by_position_class[name] for name in CLASSES}})


def _charts(trajectory: Trajectory) -> list[dict[str, Any]]:
    """For each training the components of its shift, the shift by class and the strength, against the step."""
    charts = []
    for training in dict.fromkeys(point.training for point in trajectory.points):
        points = [point for point in trajectory.points if point.training == training]

        def line_of(name: str, intervals: list[Interval], points: Any = points) -> dict[str, Any]:
            places = [
                [point.step, interval.value, interval.ci_low, interval.ci_high]
                for point, interval in zip(points, intervals, strict=True)
                if interval.value is not None
            ]
            return {"name": name, "model": name, "points": places}

        components = [
            line_of(title, [point.components[name] for point in points]) for name, title in COMPONENT_TITLES.items()
        ]
        classes = [line_of(name, [p.by_position_class[name] for p in points]) for name in CLASSES]
        strength = [line_of(COMPONENT_TITLES["ssd"], [point.ssd_strength for point in points])]
        for title, note, series in (
            ("Components of the shift", "nats per position", components),
            ("Shift by class", "KL(trained ‖ baseline), nats per position", classes),
            ("Strength of self-distillation", "s, if the model were (1 − s) baseline + s q", strength),
        ):
            drawn = [line for line in series if line["points"]]
            charts.append({"title": title, "note": f"{note}; {training}", "x": "step", "series": drawn})
    return [chart for chart in charts if chart["series"]]


def _changes(trajectory: Trajectory) -> dict[str, Any]:
    rows = []
    before: dict[str, int] = {}
    for point in trajectory.points:
        earlier = before.get(point.training, 0)
        rows.append(
            [
                point.training,
                f"{earlier:,} to {point.step:,}",
                *(format_interval(point.since_previous[name], signed=True) for name in COMPONENT_TITLES),
            ]
        )
        before[point.training] = point.step
    head = ["training", "steps", *(f"{title}, nats per position" for title in COMPONENT_TITLES.values())]
    return {"head": head, "rows": rows, "words": [1]}
