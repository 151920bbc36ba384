"""How figures look: SVG that is the same for the same numbers, plain axes, one colour of ink."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def style(ink: str) -> dict[Any, Any]:
    """Settings for matplotlib's `rc_context`."""
    return {
        "svg.hashsalt": "ssdfast",  # or ids differ from run to run
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
    """matplotlib.pyplot drawing to files, the caller's own backend put back after. Raises ValueError where it is not
    installed."""
    try:
        import matplotlib
    except ImportError:
        raise ValueError("figures need a package that is not installed: pip install matplotlib") from None

    before = matplotlib.get_backend()
    matplotlib.use("Agg")
    from matplotlib import pyplot

    try:
        yield pyplot
    finally:
        matplotlib.use(before)
