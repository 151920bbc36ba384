"""Results of stages as the JSON that is on disk."""

from __future__ import annotations

from ssdfast.attribution import attribute as attribution
from ssdfast.workflows import evaluate as evaluation
from ssdfast.workflows.study import runner


def attribute(*args, **kwargs):
    return attribution.attribute(*args, **kwargs).to_json()


def evaluate(*args, **kwargs):
    return evaluation.evaluate(*args, **kwargs).to_json()


def study(*args, **kwargs):
    results = runner.study(*args, **kwargs)
    return results and results.to_json()
