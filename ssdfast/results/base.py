"""The base of every result, and the mistakes that all of them name."""

from __future__ import annotations

import difflib
import html
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..schemas import Interval, Manifest


class Result:
    """A directory that a stage has filled. `ssdfast.load(directory)` makes it again."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)

    def __repr__(self) -> str:
        return f"ssdfast.{type(self).__name__}({str(self.directory)!r})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Result) and self.directory == other.directory

    def __hash__(self) -> int:
        return hash((type(self), self.directory))

    def __fspath__(self) -> str:
        """The directory, so that a result stands where a path does."""
        return str(self.directory)

    def manifest(self) -> Manifest:
        """What made the result: date, command, seed, device, versions, and the sha256 of every input.

        Raises ValueError for a directory without a manifest, or with one of another version.
        """
        from ..manifest import read_manifest

        manifest = read_manifest(self.directory)
        if manifest is None:
            raise ValueError(f"{self.directory} has no manifest.json: each of its stages has one")
        return manifest

    def _repr_html_(self) -> str:
        lines = "".join(f"<p>{html.escape(line)}</p>" for line in self._lines())
        return f"<div><p><b>{html.escape(repr(self))}</b></p>{lines}</div>"

    def _lines(self) -> Sequence[str]:
        """What a notebook shows, as plain text."""
        return ()


def check_columns(names: Iterable[str], present: Sequence[str], where: object) -> None:
    """Raises ValueError that names the nearest columns, for one that is not there."""
    for name in names:
        if name not in present:
            near = difflib.get_close_matches(name, present, 3, 0.5)
            remedy = f"did you mean {' or '.join(near)}?" if near else f"the columns are {', '.join(present)}"
            raise ValueError(f"{where} has no column {name!r}: {remedy}")


def interval_columns(name: str, interval: Interval | None) -> dict[str, float | None]:
    """A value and the ends of its interval, as a row of a frame has them; None where there is none."""
    value, low, high = (interval.value, interval.ci_low, interval.ci_high) if interval else (None, None, None)
    return {name: value, f"{name}_ci_low": low, f"{name}_ci_high": high}


def new_axes(ax: Axes | None) -> Axes:
    """`ax`, or the axes of a new figure. Raises ValueError where matplotlib is missing."""
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ValueError("figures need matplotlib: pip install 'ssdfast[notebook]'") from None
    axes: Any = pyplot.subplots(figsize=(6.0, 3.6))[1]
    axes.spines[["top", "right"]].set_visible(False)
    made: Axes = axes
    return made
