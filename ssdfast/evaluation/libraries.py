"""Packages that only evaluation needs (the extra `[eval]`)."""

from __future__ import annotations

import importlib.util
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
