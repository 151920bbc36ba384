"""``write_report``: gathers what a probe left in its run directory into one self-contained HTML page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..run_dir import write_text
from ..sharded_table import Parts
from .column_encoding import described
from .format_text import CLASSES, LOCK_KINDS, METRICS, estimated, panels, told
from .html_page import assemble, fill, headline, paragraphs
from .page_traces import LAYOUT, Embedded, Source, embed
from .sanitize import inert_tree


def write_report(run_dir: Path) -> Path:
    """Write ``run_dir/report.html`` and return its path.

    Reads ``summary.json``, the parts (in ``probe`` or where the settings say) and ``probe/vocabulary.json`` (token id
    -> decoded text). The page is below 10 MB, opens from disk and asks no host for anything. Raises ValueError where an
    input is missing or broken.
    """
    summary = read_summary(run_dir)
    source = source_of(run_dir, summary)
    embedded = embed([source], read_object(run_dir / "probe" / "vocabulary.json"))
    summary = inert_tree(summary)
    shown, every = len(embedded.traces), len(source.where)
    drawn = (
        f"{shown:,} of {every:,} traces, drawn at random, in turn from each generator. The figures above use them all."
    )
    data = {
        "groups": _groups(summary),
        "classes": _counts(summary["by_class"], CLASSES),
        "locks": _counts(summary["locks"], LOCK_KINDS),
        "share": summary["all"]["ssd_share"],
        "settings": summary["settings"],
        **browser_data(embedded),
        "browser": {
            **browser_words(embedded, source),
            "drawn": f"All {every:,} traces of the run." if shown == every else drawn,
            "every": "every generator",
        },
    }
    title, sentences = told(summary)
    pieces = {
        "headline": headline(title),
        "sentences": paragraphs(sentences),
        "browser": fill("browser.html", {"label": "Traces by"}),
        "reference": fill("reference.html", {"of": "probe"}),
    }
    body = fill("probe.html", pieces)
    path = run_dir / "report.html"
    write_text(path, assemble(run_dir.resolve().name, body, ["page_probe.js"], data))
    return path


def read_summary(run_dir: Path) -> dict[str, Any]:
    """summary.json of a probe. Raises ValueError where it is missing, broken or lacks something."""
    summary = read_object(run_dir / "summary.json")
    needed = {"positions", "traces", "invalid", "labels", "by_class", "locks", "all", "by_label", "settings"}
    if missing := needed - set(summary):
        raise ValueError(f"{run_dir / 'summary.json'} has no {', '.join(sorted(missing))}: run the probe again")
    return summary


def source_of(run_dir: Path, summary: dict[str, Any], model: str = "") -> Source:
    """The table of a probe. model: shown instead of its traces' own labels. Raises ValueError for a table without
    parts, or with broken ones."""
    parts = Parts(summary["settings"].get("parts") or str(run_dir.resolve() / "probe"))
    if not parts.files():
        raise ValueError(f"{parts.root} holds no part-*.parquet: run the probe first")
    return Source.of(parts, summary["settings"], model)


def browser_data(embedded: Embedded) -> dict[str, Any]:
    """The traces and their texts."""
    return {
        "tokens": {"ids": list(embedded.tokens.place), "texts": embedded.tokens.texts},
        "traces": embedded.traces,
    }


def browser_words(embedded: Embedded, source: Source) -> dict[str, Any]:
    """What the trace browser has to know of its traces."""
    share = f"The {embedded.share:.0%} of a trace's positions that moved most have candidates and all numbers here."
    return {
        "columns": described(LAYOUT),
        "decoding": source.drawn,
        "left": share if embedded.share < 1 else "",
    }


def read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"), parse_constant=lambda _: None)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: run the probe first") from None
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): run the probe again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, found {type(value).__name__}: run the probe again")
    return value


def _groups(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures for all traces and, where there are several generators, for the traces of each."""
    entries = {"all traces": {"all": summary["all"], "by_class": summary["by_class"]}}
    if len(summary["by_label"]) > 1:
        entries |= {f"by {label}": entry for label, entry in summary["by_label"].items()}
    return [
        {"name": name, "panels": panels({"all": entry["all"], **{c: entry["by_class"][c] for c in CLASSES}})}
        for name, entry in entries.items()
    ]


def _counts(entries: dict[str, dict[str, Any]], names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "positions": entries[name]["positions"],
            **{metric.key: estimated(entries[name], metric)["text"] for metric in METRICS},
        }
        for name in names
    ]
