"""The style of figures: SVG that is equal for equal numbers, plain axes, one colour of ink."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def style(ink: str) -> dict[Any, Any]:
    """Settings for matplotlib's `rc_context`."""
    return {
        "svg.hashsalt": "ssdfast",  # otherwise ids differ from run to run
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 10,
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": ink,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": ink,
        "ytick.color": ink,
        "legend.frameon": False,
    }


@contextmanager
def pyplot() -> Iterator[Any]:
    """matplotlib.pyplot that draws to files; restores the caller's backend. Raises ValueError where it is missing."""
    try:
        import matplotlib
    except ImportError:
        raise ValueError("figures need matplotlib: pip install matplotlib") from None

    backend = matplotlib.get_backend()
    matplotlib.use("Agg")
    from matplotlib import pyplot

    try:
        yield pyplot
    finally:
        matplotlib.use(backend)
