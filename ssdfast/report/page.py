"""``write_report``: the results of a probe as one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..manifest import read_manifest
from ..probe_models import finished_models
from ..run_dir import write_text
from ..schemas import GroupSummary, ProbeSummary
from .format_text import CLASSES, LOCK_KINDS, METRICS, format_summary, interval_with_text, panels
from .html_page import assemble, fill, headline, paragraphs, provenance
from .models_page import write_models
from .page_data import browser_data, browser_settings, read_source, read_summary, vocabulary_texts
from .page_traces import embed
from .sanitize import inert_record
from .terms import all_terms


def write_report(run_dir: Path) -> Path:
    """Write ``run_dir/report.html`` and return its path. A run of several models has one page for all of them.

    Reads ``summary.json``, the table (``positions`` or the settings' ``table_dir``) and ``vocabulary.json`` (token id
    -> decoded text). The page is below 10 MB, opens from disk and loads nothing from any host. Raises ValueError
    where an input is missing or broken.
    """
    if directories := finished_models(run_dir):
        return write_models(run_dir, directories)
    summary = read_summary(run_dir)
    source = read_source(run_dir, summary)
    embedded = embed([source], vocabulary_texts(run_dir))
    summary = inert_record(summary)
    shown, total = len(embedded.traces), len(source.files)
    sample = f"{shown:,} of {total:,} traces, sampled evenly from all trace sources. The figures above use all traces."
    data = {
        "groups": _groups(summary),
        "classes": _counts(summary.by_position_class, CLASSES),
        "locks": _counts(summary.by_lock_kind, LOCK_KINDS),
        "fraction": summary.all.ssd_variance_fraction.to_json(),
        "settings": summary.settings.model_dump(mode="json"),
        **browser_data(embedded),
        "browser": {
            **browser_settings(embedded, source),
            "sample": f"All {total:,} traces of the run." if shown == total else sample,
            "every": "every source",
        },
    }
    title, sentences = format_summary(summary)
    if origin := summary.train_sampling_origin:
        sentences.append(origin)
    pieces = {
        "headline": headline(title),
        "sentences": paragraphs(sentences),
        **all_terms(),
        "provenance": provenance(read_manifest(run_dir)),
        "browser": fill("browser.html", {"label": "Traces by", **all_terms()}),
        "reference": fill("reference.html", {"stage": "probe"}),
    }
    body = fill("probe.html", pieces)
    path = run_dir / "report.html"
    write_text(path, assemble(run_dir.resolve().name, body, ["page_probe.js"], data))
    return path


def _groups(summary: ProbeSummary) -> list[dict[str, Any]]:
    """The figures for all traces and, where there are several trace sources, for each of them."""
    entries = {"all traces": (summary.all, summary.by_position_class)}
    if len(summary.by_trace_source) > 1:
        entries |= {
            f"by {name}": (entry.all, entry.by_position_class) for name, entry in summary.by_trace_source.items()
        }
    return [
        {"name": name, "panels": panels({"all": everything, **{c: by_class[c] for c in CLASSES}})}
        for name, (everything, by_class) in entries.items()
    ]


def _counts(entries: dict[str, GroupSummary], names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "positions": entries[name].positions,
            **{metric.key: interval_with_text(entries[name], metric)["text"] for metric in METRICS},
        }
        for name in names
    ]
