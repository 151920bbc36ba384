"""A self-contained page: one HTML file with its style, scripts and data inside, which loads nothing from any host."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from ..run_dir import schema_stamp
from ..schemas import Manifest
from .sanitize import embeddable_json, inert

_STYLES = ("page.css", "browser.css", "study.css")
_BROWSER_SCRIPTS = ("page_codes.js", "page_token.js", "page_traces.js", "page_browser.js")


def assemble(name: str, body: str, scripts: Sequence[str], data: Mapping[str, Any]) -> str:
    """The page. name: of the run, in its title. body: HTML, as `fill` makes it. scripts: files of this package to run
    after the trace browser's. data: JSON for them, whose strings are inert."""
    style = "\n".join(map(_read, _STYLES))
    script = "\n".join(map(_read, ("page_dom.js", "page_downloads.js", "page_charts.js", *_BROWSER_SCRIPTS, *scripts)))
    return fill(
        "page.html",
        {
            "policy": f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; form-action 'none'",
            "style": style,
            "script": script,
            "run": html.escape(inert(name)),
            "body": body,
            "contents": contents(body),
            "data": embeddable_json(data),
        },
    )


def fill(template: str, pieces: Mapping[str, str]) -> str:
    """A template of this package with HTML in the places of its markers.

    One pass, so that a marker inside of a piece is never filled in.
    """
    return re.sub(r"\{\{(\w+)\}\}", lambda marker: pieces[marker[1]], _read(template))


def contents(body: str) -> str:
    """HTML of a list of the sections of a page, by the ids of their headings."""
    items = re.findall(r'<h2 id="([\w-]+)">(.*?)</h2>', body)
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title in items)
    return f'<nav class="contents" aria-label="Contents"><ul>{links}</ul></nav>'


def provenance(manifest: Manifest | None) -> str:
    """HTML of when, where and with what the results were made. manifest: of the run; None where there is none."""
    rows = {"ssdfast": str(schema_stamp()["ssdfast_version"])}
    if manifest:
        rows |= {"Date": manifest.date, "Device": f"{manifest.device}, {manifest.machine}"}
        rows["Versions"] = ", ".join(
            f"{name} {value}" for name, value in manifest.versions.items() if name != "ssdfast"
        )
        rows["Command"] = manifest.command
        rows["Hub revisions"] = ", ".join(f"{name} {commit}" for name, commit in manifest.hub_revisions.items())
    items = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(inert(text))}</dd>" for name, text in rows.items() if text
    )
    return (
        '<details class="terms" id="provenance"><summary>Date, versions, device and command</summary>'
        f'<dl class="definitions">{items}</dl></details>'
    )


def headline(text: str) -> str:
    """HTML of a title, whose lines do not break at hyphens."""
    return html.escape(text).replace("-", "\u2011")


def paragraphs(sentences: Sequence[str]) -> str:
    """HTML of the text at the top, with a note for a reader without scripts."""
    text = "\n".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)
    return f"{text}\n<noscript><p>The figures and the traces need JavaScript; this text does not.</p></noscript>"


def _read(name: str) -> str:
    return (files(__package__) / name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
