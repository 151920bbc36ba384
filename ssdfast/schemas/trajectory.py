"""trajectory.json: the shift of the checkpoints of a training, step by step."""

from __future__ import annotations

from .attribution import Component
from .base import Interval, JsonFile, Record


class TrajectoryPoint(Record):
    """One checkpoint. Nats are per position; intervals of 95 % are over problems, those of KL by class over traces."""

    model: str
    """Its name in the probe."""
    training: str
    """The name of the training run."""
    step: int
    kl_trained_base: Interval
    """The shift, KL(trained ‖ baseline)."""
    by_position_class: dict[str, Interval]
    """The shift at locks, forks, diffuse and mixed positions."""
    components: dict[Component, Interval]
    """The components of the shift, in nats."""
    since_previous: dict[Component, Interval]
    """Components minus those of the checkpoint before, or of the baseline; the problems are the same."""
    ssd_strength: Interval
    """s, if the trained model were (1 - s) baseline + s q."""


class Trajectory(JsonFile):
    """trajectory.json."""

    points: list[TrajectoryPoint]
    """By training, then by step."""
    problems: int
