"""``write_study``: the results of a study, from its verdicts to single tokens, as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..manifest import read_manifest
from ..run_dir import write_text
from .html_page import assemble, fill, headline, paragraphs, provenance
from .page_data import browser_data, browser_settings, read_source, read_summary, vocabulary_texts
from .page_traces import embed
from .sanitize import inert_record, inert_tree
from .study import Study, Training
from .study_attribution import attributions, decoding_charts
from .study_tables import accuracy, arms_table, comparisons, diagnostics, filters, training_charts
from .study_text import format_lead, format_title
from .terms import all_terms


def write_study(path: Path, study: Study) -> Path:
    """Write the page and return its path. It is below 10 MB, opens from disk and loads nothing from any host.

    Traces are those of the first training of each arm. Raises ValueError where a probe is missing or broken.
    """
    study = replace(
        study,
        results=inert_record(study.results),
        attribution=inert_record(study.attribution),
        settings=inert_tree(study.settings),
        trainings=[replace(training, selection=inert_record(training.selection)) for training in study.trainings],
    )
    firsts = [next(training for training in study.trainings if training.arm == arm) for arm in study.arms]
    sources = [read_source(training.probe, read_summary(training.probe), training.label) for training in firsts]
    embedded = embed(sources, _vocabulary(firsts))
    shown, total = len(embedded.traces) // len(sources), len(sources[0].files)
    sample = f"{shown:,} of {total:,} answers of the baseline, sampled at random" if shown < total else (
        f"All {total:,} answers of the baseline at which the models were probed"
    )  # fmt: skip
    data = {
        "study": {
            "arms": [_arm(study, arm) for arm in study.arms],
            "armsTable": arms_table(study),
            "accuracy": accuracy(study),
            "comparisons": comparisons(study),
            "diagnostics": diagnostics(study),
            "training": training_charts(study),
            "attribution": attributions(study),
            "decoding": {arm: decoding_charts(arm, curves) for arm, curves in study.decoding_curves.arms.items()},
            "filters": filters(study),
        },
        "settings": study.settings,
        **browser_data(embedded),
        "browser": {
            **browser_settings(embedded, sources[0]),
            "sample": f"{sample}, each under the first training of every arm.",
            "every": None,
            "compare": True,
        },
    }
    pieces = {
        "headline": headline(format_title(study.attribution)),
        "sentences": paragraphs(format_lead(study)),
        **all_terms(),
        "provenance": provenance(read_manifest(firsts[0].probe)),
        "browser": fill("browser.html", {"label": "Trained model", **all_terms()}),
        "reference": fill("reference.html", {"stage": "study"}),
    }
    body = fill("study.html", pieces)
    write_text(path, assemble(study.name, body, ["page_plots.js", "page_study.js"], data))
    return path


def _arm(study: Study, arm: str) -> dict[str, Any]:
    verdict = study.attribution.arms[arm].verdict
    return {"name": arm, "control": arm == study.control, "verdict": verdict and verdict.to_json()}


def _vocabulary(trainings: Sequence[Training]) -> dict[int, str]:
    vocabulary: dict[int, str] = {}
    for training in trainings:
        vocabulary |= vocabulary_texts(training.probe)
    return vocabulary
