"""ssdfast: fused kernels and stages to study simple self-distillation of language models.

    import ssdfast as ssd

    study = ssd.study("demo", out="runs/demo")
    study.verdicts()

Each stage is a function that fills a directory and returns an object that knows it; `load` makes the object again.
Names are imported when they are used, so that ``import ssdfast`` is quick and loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import kernels
    from .api.stages import attribute, estimate, evaluate, probe, sample, study, train
    from .config import SamplingParams
    from .results.attribution import Attribution
    from .results.evaluation import Evaluation
    from .results.load import load
    from .results.model import Model
    from .results.probe import Probe
    from .results.study import Study
    from .results.traces import Traces
    from .training.soft_label_loss import SoftLabelLoss

    __version__: str

_MODULES = {
    **dict.fromkeys(("attribute", "estimate", "evaluate", "probe", "sample", "study", "train"), "api.stages"),
    "Attribution": "results.attribution",
    "Evaluation": "results.evaluation",
    "Model": "results.model",
    "Probe": "results.probe",
    "SamplingParams": "config",
    "SoftLabelLoss": "training.soft_label_loss",
    "Study": "results.study",
    "Traces": "results.traces",
    "load": "results.load",
}

__all__ = [
    "Attribution",
    "Evaluation",
    "Model",
    "Probe",
    "SamplingParams",
    "SoftLabelLoss",
    "Study",
    "Traces",
    "__version__",
    "attribute",
    "estimate",
    "evaluate",
    "kernels",
    "load",
    "probe",
    "sample",
    "study",
    "train",
]


def __getattr__(name: str) -> Any:
    """A public name, imported when it is used."""
    from importlib import import_module

    if name == "__version__":
        return _version()
    if name == "kernels":
        return import_module(".kernels", __name__)
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ssdfast")
    except PackageNotFoundError:  # a checkout on the path that nobody has installed
        return "0+unknown"
