"""Packages that only evaluation needs (the extra `[eval]`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_PACKAGES = {
    "math_verify": "math-verify",
    "matplotlib": "matplotlib",
    "scipy": "scipy",
    "statsmodels": "statsmodels",
}


def check_installed() -> None:
    """Raises ValueError that names what is not, before hours of sampling and not after."""
    missing = [name for module, name in _PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ValueError(f"evaluation needs packages that are not installed: pip install {' '.join(missing)}")


def scipy_stats() -> Any:
    """The module scipy.stats. Raises ValueError where it is not installed."""
    try:
        import scipy.stats
    except ImportError:
        raise ValueError("evaluation needs a package that is not installed: pip install scipy") from None
    return scipy.stats


def statsmodels_stats() -> Any:
    """The module statsmodels.stats.api. Raises ValueError where it is not installed."""
    try:
        import statsmodels.stats.api
    except ImportError:
        raise ValueError("evaluation needs a package that is not installed: pip install statsmodels") from None
    return statsmodels.stats.api


@contextmanager
def pyplot() -> Iterator[Any]:
    """matplotlib.pyplot drawing to files, the caller's own backend put back after."""
    import matplotlib

    before = matplotlib.get_backend()
    matplotlib.use("Agg")
    from matplotlib import pyplot

    try:
        yield pyplot
    finally:
        matplotlib.use(before)
