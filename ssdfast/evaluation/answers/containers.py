r"""Answers of several parts: tuples, sets, lists, intervals, unions."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import permutations

from .equations import tuple_names
from .errors import Unparsable
from .inequalities import end
from .normalize import closing, split_top
from .regions import Pieces, complement, intersection, interval, single, union
from .scanner import Node
from .types import Answer, Equation, Items, Region, Value, Words
from .wording import NONE

Inner = Callable[[str, int], Answer]

_COMMA = re.compile(r"[,;]")
_CUP = re.compile(r"\\cup(?![A-Za-z])|(?<=[\])]) ?U ?(?=[\[(])")
_CAP = re.compile(r"\\cap(?![A-Za-z])")
_WITHOUT = re.compile(r"\\setminus(?![A-Za-z])|(?<=\})\s*-\s*(?=\\\{)")
_ENDPOINT = re.compile(r"\\infty")
_ROOT_NAME = re.compile(r"(?:[xztr]|\\lambda)_(?:[0-9])")
_MAX_PERMUTED = 5


def bracketed(text: str, brackets: str, inside: str, depth: int, inner: Inner) -> Answer | None:
    """The tuple, set or interval that brackets around the whole of `text` make, None where there are none."""
    if not brackets:
        around = _brackets(text)
        if around is None:
            return None
        brackets, inside = around
    parts = [part for part in split_top(inside, _COMMA) if part]
    if not parts:
        raise Unparsable("empty brackets")
    items = tuple(inner(part, depth) for part in parts)
    if (
        brackets == "{}"
        and len(items) > 1
        and all(isinstance(item, Equation) and item.kind == "name" for item in items)
    ):
        return listed(list(items), "comma")
    if brackets == "{}":
        return items[0] if len(items) == 1 and isinstance(items[0], Region) else Items("set", _flat(items))
    if len(items) == 1:
        return items[0]
    if all(isinstance(item, Equation) and item.kind == "name" for item in items):
        return listed(list(items), "comma")
    if len(items) == 2 and brackets != "[]" and (brackets != "()" or _ENDPOINT.search(inside)):
        try:
            low, high = map(end, parts)
        except Unparsable:
            return Items("tuple", items, brackets)
        pieces = interval(low, high, brackets[0] == "[", brackets[1] == "]")
        if not pieces:
            raise Unparsable("an interval whose ends are not in order")
        return Region(pieces)
    return Items("tuple", items, brackets)


def _brackets(text: str) -> tuple[str, str] | None:
    """The brackets around the whole of `text`, and their content."""
    for opening, ending in (("\\{", "\\}"), ("\\langle", "\\rangle")):
        if text.startswith(opening) and text.endswith(ending) and len(text) >= len(opening) + len(ending):
            inside = text[len(opening) : -len(ending)]
            if opening not in inside or (opening == "\\{" and closing(text, 1) == len(text) - 1):
                return ("{}" if ending == "\\}" else "()"), inside.strip()
    transposed = re.sub(r"\s*\^\s*(?:T|\{\s*T\s*\}|\\top|\{\s*\\top\s*\})$", "", text)
    if text[0] in "([" and "," in transposed and closing(transposed, 0) == len(transposed) - 1:
        return transposed[0] + transposed[-1], transposed[1:-1].strip()
    if text[0] in "([" and closing(text, 0) == len(text) - 1:
        return text[0] + text[-1], text[1:-1].strip()
    return None


def union_or_difference(text: str, depth: int, inner: Inner) -> Answer | None:
    r"""``A \cup B``, ``A \cap B`` and ``A \setminus B``, of regions or of sets with names; None for anything else."""
    for pattern, combine in ((_CUP, union), (_WITHOUT, _difference), (_CAP, intersection)):
        pieces = [piece for piece in split_top(text, pattern) if piece]
        if len(pieces) < 2:
            continue
        parts = [inner(piece, depth) for piece in pieces]
        regions = [as_pieces(part) for part in parts]
        if all(region is not None for region in regions):
            return Region(combine([region for region in regions if region is not None]))
        if combine is _difference:
            raise Unparsable("a difference of what are no sets")
        return Items("set", tuple(parts), "cup" if combine is union else "cap")
    return None


def _difference(regions: list[Pieces]) -> Pieces:
    first, *others = regions
    return intersection([first, *(complement(union([other])) for other in others)])


def as_pieces(answer: Answer) -> Pieces | None:
    """The region that an answer can be taken for, None where there is none."""
    if isinstance(answer, Region):
        return None if answer.domain else answer.pieces
    if isinstance(answer, Words):
        return () if answer.text == NONE else None
    if not (isinstance(answer, Items) and all(isinstance(item, Value) for item in answer.items)) or answer.names:
        return None
    try:
        ends = [end(item.text) for item in answer.items if isinstance(item, Value)]
    except Unparsable:
        return None
    if answer.kind == "set":
        return union(single(value) for value in ends) if not answer.brackets.startswith("c") else None
    if len(ends) == 2 and answer.brackets in ("()", "[]"):
        return interval(ends[0], ends[1], answer.brackets[0] == "[", answer.brackets[1] == "]") or None
    return None


def listed(items: list[Answer], joint: str) -> Answer:
    """Several answers side by side without brackets; "and" and a comma between inequalities mean both of them."""
    if items and all(isinstance(item, Region) for item in items):
        regions = [item.pieces for item in items if isinstance(item, Region)]
        common = intersection(regions) if joint != "or" else ()
        return Region(common or union(regions), next((item.name for item in items if isinstance(item, Region)), ""))
    first = items[0]
    if isinstance(first, Equation) and (names := tuple_names(first.name)) and not isinstance(items[-1], Equation):
        return Items("list", (_name_items(first.value, names), *items[1:]))  # (x, y) = (1, 2), (3, 4)
    stated = [item.name for item in items if isinstance(item, Equation) and item.kind != "equation"]
    unsolved = any(isinstance(item, Equation) and item.kind == "equation" for item in items)
    if (
        isinstance(first, Equation) and len(set(stated)) == 1 < len(items) and not unsolved
    ):  # x = 1 or x = 2; x = ±1, ±2
        values = tuple(item.value if isinstance(item, Equation) else item for item in items)
        return Items("list", _flat(values), "or", (first.name,))
    if len(stated) == len(items) and len(stated) > 1:
        return _named(items, stated)
    return items[0] if len(items) == 1 else Items("list", _flat(tuple(items)), "or" if joint == "or" else "")


def _named(items: list[Answer], names: list[str]) -> Answer:
    values = [item.value for item in items if isinstance(item, Equation)]
    if all(_ROOT_NAME.fullmatch(name) for name in names) and len({name[0] for name in names}) == 1:
        return Items("list", tuple(values))  # x_1 = 2, x_2 = 3 are the roots
    if len(set(names)) == len(names):
        return Items("tuple", tuple(values), "=", tuple(names))  # x = 6, y = 5 is a point
    points: list[list[Answer]] = [[]]  # x = 0, y = 2 and x = 9, y = 11
    for item in items:
        taken = [other.name for other in points[-1] if isinstance(other, Equation)]
        if isinstance(item, Equation) and item.name in taken:
            points.append([])
        points[-1].append(item)
    return Items("list", tuple(listed(point, "comma") for point in points))


def _name_items(answer: Answer, names: tuple[str, ...]) -> Answer:
    if isinstance(answer, Items) and answer.kind == "tuple" and len(answer.items) == len(names):
        return Items("tuple", answer.items, answer.brackets, names)
    return answer


def named_tuple(answer: Equation) -> Answer:
    """The value of an equation; that of ``(p, q) = (7, 2)`` with its names."""
    return _name_items(answer.value, tuple_names(answer.name))


def permuted(answer: Answer, cyclic: bool) -> Answer:
    """A tuple and all that come of permuting it. Raises Unparsable for anything else."""
    if not isinstance(answer, Items) or answer.kind != "tuple" or len(answer.items) > _MAX_PERMUTED:
        raise Unparsable("permutations of what is no short tuple")
    count = len(answer.items)
    orders = (
        [answer.items[place:] + answer.items[:place] for place in range(count)]
        if cyclic
        else list(permutations(answer.items))
    )
    return Items("set", tuple(Items("tuple", tuple(order), answer.brackets) for order in orders))


def _flat(items: tuple[Answer, ...]) -> tuple[Answer, ...]:
    """±1 among others is two values."""
    return tuple(
        part for item in items for part in (item.items if isinstance(item, Items) and item.kind == "list" else (item,))
    )


def as_matrices(items: Items) -> list[Node]:
    """The matrices that a tuple can stand for: a row and a column, or its rows."""
    if all(isinstance(item, Value) for item in items.items):
        entries = tuple(item.node for item in items.items if isinstance(item, Value))
        return [("matrix", (entries,)), ("matrix", tuple((entry,) for entry in entries))]
    rows = [item for item in items.items if isinstance(item, Items) and item.kind == "tuple"]
    cells = [[cell.node for cell in row.items if isinstance(cell, Value)] for row in rows]
    if (
        len(rows) != len(items.items)
        or len({len(row) for row in cells}) != 1
        or any(len(c) != len(r.items) for c, r in zip(cells, rows, strict=True))
    ):
        return []
    return [("matrix", tuple(map(tuple, cells)))]
