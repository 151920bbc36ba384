r"""The content of the last balanced ``\boxed{...}`` in a text, in linear time and without recursion."""

from __future__ import annotations

import re

_BRACES = re.compile(r"(?P<box>\\{1,2}(?:boxed|fbox)\s*\{)|\\[\\{}]|(?P<open>\{)|(?P<close>\})")
_SPACE = re.compile(r"\s*")


def last_boxed(text: str) -> str | None:
    r"""The content of the last balanced ``\boxed{...}`` or ``\fbox{...}``; of nested ones, the outer.

    A box that the text breaks off in is skipped for the balanced one before it: the earlier answer was stated in full.
    An empty box, which quotes the instruction, is skipped too. None where no other box is left.
    """
    open_boxes: list[int | None] = []  # where the content of each open brace begins, None for a brace that is no box
    boxes: list[tuple[int, int]] = []
    for match in _BRACES.finditer(text):
        if match["box"]:
            open_boxes.append(match.end())
        elif match["open"]:
            open_boxes.append(None)
        elif match["close"] and open_boxes:
            start = open_boxes.pop()
            if start is not None and _SPACE.match(text, start).end() < match.start():  # type: ignore[union-attr]
                while boxes and boxes[-1][0] > start:
                    boxes.pop()
                boxes.append((start, match.start()))
    return text[slice(*boxes[-1])].strip() if boxes else None
