"""What decides a verdict, and what its sentences name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .power import ALPHA

MIXTURE, NONE, UNDECIDED = "mixture", "none", "undecided"
RECIPES, MODELS = "recipes", "models"
MIN_FRACTION = 0.15
"""fraction of an arm's shift beyond the control from which on a component is named"""


@dataclass(frozen=True)
class Design:
    """How many trainings and problems a comparison of two arms has."""

    seeds: int
    control_seeds: int
    problems: int
    tests: int
    """components tested, over all arms"""

    @property
    def scope(self) -> str:
        """What a verdict is about: with one seed of each arm these two models, else the recipes."""
        return MODELS if self.seeds == self.control_seeds == 1 else RECIPES


def is_significant(test: Mapping[str, Any]) -> bool:
    """Whether a test's corrected p-value is at most ALPHA."""
    return test["p_value_holm"] is not None and test["p_value_holm"] <= ALPHA
