r"""The answer that a text puts into ``\boxed{...}``, in linear time and without recursion."""

from __future__ import annotations

import re

_BRACES = re.compile(
    r"(?P<box>\\{1,2}(?:boxed|fbox|framebox)\s*\{)"
    r"|\\{1,2}(?:boxed|fbox)[ ]?(?P<bare>(?:(?<=[ dx])[-+]?[0-9]+(?:\.[0-9]+)?|[A-Za-z](?=\s*\$)|\\[a-z]+(?=\s*\$)"
    r"|\\[dt]?frac[0-9]{2}|\\[dt]?frac\{[0-9]{1,99}\}\{[0-9]{1,99}\}|\\sqrt[0-9]|\\sqrt\{[0-9]{1,99}\}))"
    r"|\\[\\{}]|(?P<open>\{)|(?P<close>\})"
)
_SPACE = re.compile(r"\s*")
_PLACEHOLDER = re.compile(
    r"\s*(?:\\text\s*\{)?\s*(?:\.\.\.|\\l?dots|[<\[]?(?:(?:your|the|final)\s+)*(?:answer|result)(?:\s+here)?[>\]]?)\s*\}?\s*",
    re.IGNORECASE,
)
_JOINT = re.compile(
    r"(?:[\s$*~]|\\[()\[\],;:! ]|\\q?quad|\\text\s*\{|\})*(?P<word>,|;|、|，|(?:,\s*)?(?:and|or)\b|和|或|与)"
    r"(?:[\s$*~]|\\[()\[\],;:! ]|\\q?quad|\\text\s*\{|\}|and\b|or\b)*"
    r"(?:\\?[A-Za-z]+(?:_\{?\w+\}?)?\s*=\s*)?(?:[\s$*~]|\\[(\[])*"
)
_MAX_JOINT = 60


def last_boxed(text: str) -> str | None:
    r"""The content of the last balanced ``\boxed{...}``, ``\fbox`` or ``\framebox``; of nested ones, the outer.

    A box that the text breaks off in is skipped for the balanced one before it: the earlier answer was stated in full.
    An empty box or one with a placeholder ("\boxed{answer}"), which quotes the instruction, is skipped too. A box
    without braces holds one number or symbol. None where no box is left.
    """
    boxes = _boxes(text)
    return text[slice(*boxes[-1][1])].strip() if boxes else None


def boxed_answer(text: str) -> str | None:
    r"""The last box, together with the boxes before it that are parts of the same answer.

    Boxes are parts of one answer where a comma, "and" or "or" and at most a name with its equals sign stands between
    them: ``$x = \boxed{2}$ and $x = \boxed{3}$`` is "2, 3". Any other words end the answer, so that in
    ``\boxed{11}, no: \boxed{12}`` or ``first \boxed{3}, then \boxed{7}`` the last box alone counts.
    """
    boxes = _boxes(text)
    if not boxes:
        return None
    parts = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        between = text[box[0][1] : min(parts[0][0][0], box[0][1] + _MAX_JOINT + 1)]
        if len(between) > _MAX_JOINT or not _JOINT.fullmatch(between):
            break
        parts.insert(0, box)
    contents = list(dict.fromkeys(text[slice(*content)].strip() for _, content in parts))
    return ", ".join(contents)


def _boxes(text: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where each outer box, and its content, begins and ends."""
    open_boxes: list[tuple[int, int] | None] = []  # a box's begin and that of its content, None for another brace
    boxes: list[tuple[tuple[int, int], tuple[int, int]]] = []
    for match in _BRACES.finditer(text):
        if match["box"]:
            open_boxes.append((match.start(), match.end()))
        elif match["bare"]:
            boxes.append((match.span(), match.span("bare")))
        elif match["open"]:
            open_boxes.append(None)
        elif match["close"] and open_boxes:
            opened = open_boxes.pop()
            if opened is None or _SPACE.match(text, opened[1]).end() >= match.start():  # type: ignore[union-attr]
                continue
            while boxes and boxes[-1][0][0] > opened[0]:
                boxes.pop()
            if match.start() - opened[1] > 40 or not _PLACEHOLDER.fullmatch(text, opened[1], match.start()):
                boxes.append(((opened[0], match.end()), (opened[1], match.start())))
    return boxes
