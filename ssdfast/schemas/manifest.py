"""manifest.json: what made the results of a run directory, and from what."""

from __future__ import annotations

from .base import JsonFile


class Manifest(JsonFile):
    """Written when a run begins. A continued run must have the same inputs."""

    versions: dict[str, str | None]
    """Of Python and of the packages that the results depend on, None for one that is not installed."""
    device: str
    machine: str
    """The operating system and its version."""
    git_commit: str | None
    """Of ssdfast's source tree, None for an installed package."""
    seed: int
    command: str
    date: str
    """ISO 8601, in UTC."""
    hub_revisions: dict[str, str]
    """The commit of each model or tokenizer that came from the Hugging Face hub, by its name."""
    inputs: dict[str, str]
    """The sha256 of each input file, by its path."""
