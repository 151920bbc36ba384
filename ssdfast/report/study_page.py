"""``write_study``: what a study found, from its verdicts down to single tokens, as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..run_dir import write_text
from .html_page import assemble, fill, headline, paragraphs
from .page import browser_data, browser_words, read_object, read_summary, source_of
from .page_traces import embed
from .sanitize import inert_tree
from .study import Study, Training
from .study_attribution import attributions, panel_charts
from .study_tables import accuracy, arms_table, comparisons, filters, health, training_charts
from .study_text import lead, title


def write_study(path: Path, study: Study) -> Path:
    """Write the page and return its path. It is below 10 MB, opens from disk and asks no host for anything.

    Traces are those of the first training of each arm. Raises ValueError where a probe is missing or broken.
    """
    study = replace(
        study,
        results=inert_tree(study.results),
        attribution=inert_tree(study.attribution),
        settings=inert_tree(study.settings),
        trainings=[replace(one, selection=inert_tree(one.selection)) for one in study.trainings],
    )
    firsts = [next(one for one in study.trainings if one.arm == arm) for arm in study.arms]
    sources = [source_of(one.probe, read_summary(one.probe), one.label) for one in firsts]
    embedded = embed(sources, _vocabulary(firsts))
    shown, every = len(embedded.traces) // len(sources), len(sources[0].where)
    drawn = f"{shown:,} of {every:,} of the baseline's answers, drawn at random" if shown < every else (
        f"All {every:,} answers of the baseline at which the models were probed"
    )  # fmt: skip
    data = {
        "study": {
            "arms": [_arm(study, arm) for arm in study.arms],
            "armsTable": arms_table(study),
            "accuracy": accuracy(study),
            "comparisons": comparisons(study),
            "health": health(study),
            "training": training_charts(study),
            "attribution": attributions(study),
            "panels": {arm: panel_charts(arm, found) for arm, found in study.panels.items()},
            "filters": filters(study),
        },
        "settings": study.settings,
        **browser_data(embedded),
        "browser": {
            **browser_words(embedded, sources[0]),
            "drawn": f"{drawn}, each under the first training of every arm.",
            "every": None,
            "compare": True,
        },
    }
    pieces = {
        "headline": headline(title(study.attribution)),
        "sentences": paragraphs(lead(study)),
        "browser": fill("browser.html", {"label": "Trained model"}),
        "reference": fill("reference.html", {"of": "study"}),
    }
    body = fill("study.html", pieces)
    write_text(path, assemble(study.name, body, ["page_plots.js", "page_study.js"], data))
    return path


def _arm(study: Study, arm: str) -> dict[str, Any]:
    return {
        "name": arm,
        "control": arm == study.control,
        "verdict": study.attribution["arms"][arm].get("verdict"),
    }


def _vocabulary(trainings: Sequence[Training]) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in trainings:
        found |= read_object(one.probe / "probe" / "vocabulary.json")
    return found
