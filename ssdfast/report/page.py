"""``write_report``: gathers what a probe left in its run directory into one self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..parts import Parts
from ..rundir import write_text
from .embedded import TokenTable, embed, find_traces
from .text import embeddable_json, inert, inert_tree
from .words import CLASSES, LOCK_KINDS, METRICS, estimated, headline, panels

_SCRIPTS = ("page_dom.js", "page_charts.js", "page_token.js", "page_traces.js", "page.js")


def write_report(run_dir: Path) -> Path:
    """Write ``run_dir/report.html`` and return its path.

    Reads ``summary.json``, the parts (in ``probe`` or where the settings say) and ``probe/vocabulary.json`` (token id
    -> decoded text). The page is below 10 MB, opens from disk and asks no host for anything. Raises ValueError where an
    input is missing or broken.
    """
    summary = _read_json(run_dir / "summary.json")
    needed = {"positions", "traces", "invalid", "labels", "by_class", "locks", "all", "by_label", "settings"}
    if missing := needed - set(summary):
        raise ValueError(f"{run_dir / 'summary.json'} has no {', '.join(sorted(missing))}: run the probe again")
    parts = Parts(summary["settings"].get("parts") or str(run_dir.resolve() / "probe"))
    if not parts.files():
        raise ValueError(f"{parts.root} holds no part-*.parquet: run the probe first")
    tokens = TokenTable(_read_json(run_dir / "probe" / "vocabulary.json"))
    where = find_traces(parts)
    traces = embed(parts, where, tokens, summary["settings"].get("train"))
    summary = inert_tree(summary)
    data = {
        "groups": _groups(summary),
        "classes": _counts(summary["by_class"], CLASSES),
        "locks": _counts(summary["locks"], LOCK_KINDS),
        "share": summary["all"]["ssd_share"],
        "settings": summary["settings"],
        "tokens": {"ids": list(tokens.place), "texts": tokens.texts},
        "traces": traces,
        "tracesInRun": len(where),
    }
    path = run_dir / "report.html"
    write_text(path, _assemble(inert(run_dir.resolve().name), summary, data))
    return path


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


def _assemble(run_name: str, summary: dict[str, Any], data: dict[str, Any]) -> str:
    here = files(__package__)
    style = (here / "page.css").read_text("utf-8")
    script = "\n".join((here / name).read_text("utf-8") for name in _SCRIPTS)
    title, sentences = headline(summary)
    pieces = {
        "policy": f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; form-action 'none'",
        "style": style,
        "script": script,
        "run": html.escape(run_name),
        "headline": html.escape(title).replace("self-", "self\u2011"),  # the hyphen at which no line breaks
        "sentences": "\n".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences),
        "data": embeddable_json(data),
    }
    # One pass, so that a marker inside a token's text is never filled in.
    template = (here / "page.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda marker: pieces[marker[1]], template)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"), parse_constant=lambda _: None)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: run the probe first") from None
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): run the probe again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, found {type(value).__name__}: run the probe again")
    return value
