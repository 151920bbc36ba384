"""Experiment trackers, checked before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

_PACKAGES = {"azure_ml": ("azureml",), "flyte": ("flytekit",), "tensorboard": ("tensorboard", "tensorboardX")}


def check_trackers(names: Sequence[str]) -> None:
    """Raises ValueError for a tracker that is unknown or whose package is not installed."""
    for name in names:
        if name in ("all", "none"):
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            raise ValueError(
                f"report_to: {name!r} is unknown: choose from {', '.join(sorted(INTEGRATION_TO_CALLBACK))}"
            )
        packages = _PACKAGES.get(name, (name,))
        if not any(map(find_spec, packages)):
            raise ValueError(f"report_to: {name} is not installed: pip install {packages[0]}, or leave it out")
