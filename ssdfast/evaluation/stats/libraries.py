"""The statistics packages of the extra ``[eval]``, imported when they are needed."""

from __future__ import annotations

from typing import Any


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
