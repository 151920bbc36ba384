"""The statistics package of the extra ``[eval]``, imported when it is needed."""

from __future__ import annotations

from typing import Any


def scipy_stats() -> Any:
    """The module scipy.stats. Raises ValueError where it is not installed."""
    try:
        import scipy.stats
    except ImportError:
        raise ValueError("evaluation needs a package that is not installed: pip install scipy") from None
    return scipy.stats
