"""The defaults of a stage that depend on a preset or on other settings; flags, files and keyword arguments override
them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .sampling_params import PRESETS
from .train import SCHEDULES

DEFAULT_PRESET = "math"


def sample_defaults(preset: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of `ssdfast sample`: the sampling parameters of its purpose."""
    chosen = PRESETS[preset]
    evaluation = settings.get("purpose", "training") == "evaluation"
    return {"sampling": (chosen.eval_sampling if evaluation else chosen.train_sampling).model_dump()}


def eval_defaults(preset: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of `ssdfast eval`."""
    return {"sampling": PRESETS[preset].eval_sampling.model_dump()}


def train_defaults(preset: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of `ssdfast train`: the schedule too."""
    return {"train_sampling": PRESETS[preset].train_sampling.model_dump(), **SCHEDULES[preset]}


def probe_defaults(preset: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of `ssdfast probe`."""
    return PRESETS[preset].model_dump()


def merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `override`, mappings within mappings too."""
    merged = dict(base)
    for key, value in override.items():
        default = merged.get(key)
        merged[key] = merge(default, value) if isinstance(default, dict) and isinstance(value, dict) else value
    return merged
