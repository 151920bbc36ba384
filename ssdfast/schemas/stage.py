"""done.json: a stage of a study that has run."""

from __future__ import annotations

from .base import JsonFile


class StageDone(JsonFile):
    """The stage's name, and how long it took."""

    name: str
    seconds: float
