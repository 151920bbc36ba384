"""ssdfast: fused kernels and stages to study simple self-distillation of language models."""

from __future__ import annotations

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    """``__version__``, from the metadata of the installed package."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ssdfast")
    except PackageNotFoundError:  # a checkout on the path that nobody has installed
        return "0+unknown"
