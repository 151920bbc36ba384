"""``write_report``: the results of a probe as one self-contained HTML page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..run_dir import write_text
from ..sharded_table import ShardedTable
from .column_encoding import describe_columns
from .format_text import CLASSES, LOCK_KINDS, METRICS, format_summary, interval_with_text, panels
from .html_page import assemble, fill, headline, paragraphs, provenance
from .page_traces import LAYOUT, Embedded, Source, embed
from .sanitize import inert_tree
from .terms import all_terms


def write_report(run_dir: Path) -> Path:
    """Write ``run_dir/report.html`` and return its path.

    Reads ``summary.json``, the table (``positions`` or the settings' ``table_dir``) and ``vocabulary.json`` (token id
    -> decoded text). The page is below 10 MB, opens from disk and loads nothing from any host. Raises ValueError
    where an input is missing or broken.
    """
    summary = read_summary(run_dir)
    source = read_source(run_dir, summary)
    embedded = embed([source], read_object(run_dir / "vocabulary.json"))
    summary = inert_tree(summary)
    shown, total = len(embedded.traces), len(source.files)
    sample = f"{shown:,} of {total:,} traces, sampled evenly from all trace sources. The figures above use all traces."
    data = {
        "groups": _groups(summary),
        "classes": _counts(summary["by_position_class"], CLASSES),
        "locks": _counts(summary["by_lock_kind"], LOCK_KINDS),
        "fraction": summary["all"]["ssd_variance_fraction"],
        "settings": summary["settings"],
        **browser_data(embedded),
        "browser": {
            **browser_settings(embedded, source),
            "sample": f"All {total:,} traces of the run." if shown == total else sample,
            "every": "every source",
        },
    }
    title, sentences = format_summary(summary)
    if origin := summary.get("train_sampling_origin"):
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


def read_summary(run_dir: Path) -> dict[str, Any]:
    """summary.json of a probe. Raises ValueError where it is missing, broken or lacks something."""
    summary = read_object(run_dir / "summary.json")
    needed = {
        "positions",
        "traces",
        "invalid",
        "trace_sources",
        "by_position_class",
        "by_lock_kind",
        "all",
        "by_trace_source",
        "settings",
    }
    if missing := needed - set(summary):
        raise ValueError(f"{run_dir / 'summary.json'} has no {', '.join(sorted(missing))}: run the probe again")
    return summary


def read_source(run_dir: Path, summary: dict[str, Any], model: str = "") -> Source:
    """The table of a probe. model: shown instead of the trace sources. Raises ValueError for a table without shards, or
    with broken ones."""
    table = ShardedTable.from_run(run_dir, summary["settings"].get("table_dir"))
    if not table.files():
        raise ValueError(f"{table.root} holds no shard-*.parquet: run the probe first")
    return Source.from_table(table, summary["settings"], model)


def read_manifest(run_dir: Path) -> dict[str, Any] | None:
    """manifest.json of a run, None where there is none."""
    path = run_dir / "manifest.json"
    return read_object(path) if path.exists() else None


def browser_data(embedded: Embedded) -> dict[str, Any]:
    """The traces, what they answer, and their texts."""
    return {
        "about": embedded.about,
        "tokens": {"ids": list(embedded.tokens.place), "texts": embedded.tokens.texts},
        "traces": embedded.traces,
    }


def browser_settings(embedded: Embedded, source: Source) -> dict[str, Any]:
    """What the trace browser needs beside the traces."""
    left_out = (
        f"The {embedded.fraction:.0%} of a trace's positions that shifted most have candidates and all numbers here."
    )
    return {
        "columns": describe_columns(LAYOUT),
        "decoding": source.decoding,
        "tokenClasses": embedded.token_classes,
        "leftOut": left_out if embedded.fraction < 1 else "",
    }


def read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"), parse_constant=lambda _: None)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: run the probe first") from None
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): run the probe again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(value).__name__}: run the probe again")
    return value


def _groups(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures for all traces and, where there are several trace sources, for each of them."""
    entries = {"all traces": {"all": summary["all"], "by_position_class": summary["by_position_class"]}}
    if len(summary["by_trace_source"]) > 1:
        entries |= {f"by {source}": entry for source, entry in summary["by_trace_source"].items()}
    return [
        {"name": name, "panels": panels({"all": entry["all"], **{c: entry["by_position_class"][c] for c in CLASSES}})}
        for name, entry in entries.items()
    ]


def _counts(entries: dict[str, dict[str, Any]], names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "positions": entries[name]["positions"],
            **{metric.key: interval_with_text(entries[name], metric)["text"] for metric in METRICS},
        }
        for name in names
    ]
