"""Settings of an attribution."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import Settings


class AttributeConfig(Settings):
    """The probes of each arm."""

    arms: Annotated[dict[str, tuple[str, ...]], Field(min_length=1)]
    """The run directories of the probes of each arm, one per seed of its training."""
    control: str = "control"
    """The arm that the other arms are compared with."""
