"""Sets of real numbers as unions of intervals, whose ends are numbers or infinite."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Any, NamedTuple

from mpmath import mp

INFINITY = float("inf")
_DIGITS = 50


class Piece(NamedTuple):
    """An interval; a single number is one with equal ends that is closed."""

    low: Any
    high: Any
    low_closed: bool
    high_closed: bool


Pieces = tuple[Piece, ...]

REALS: Pieces = (Piece(-INFINITY, INFINITY, False, False),)


def interval(low: Any, high: Any, low_closed: bool, high_closed: bool) -> Pieces:
    """An interval; no pieces where its ends are not in order."""
    low_closed, high_closed = low_closed and not _infinite(low), high_closed and not _infinite(high)
    if _less(high, low) or (same_end(low, high) and not (low_closed and high_closed)):
        return ()
    return (Piece(low, high, low_closed, high_closed),)


def single(value: Any) -> Pieces:
    return (Piece(value, value, True, True),)


def union(regions: Iterable[Pieces]) -> Pieces:
    """All numbers of the regions, in as few pieces as there can be, in order."""
    pieces = [piece for region in regions for piece in region]
    if len(pieces) < 2:
        return tuple(pieces)
    with mp.workdps(_DIGITS):
        pieces.sort(key=lambda piece: (_key(piece.low), not piece.low_closed))
        merged = [pieces[0]]
        for piece in pieces[1:]:
            last = merged[-1]
            touching = same_end(piece.low, last.high) and (piece.low_closed or last.high_closed)
            if not touching and not _less(piece.low, last.high):
                merged.append(piece)
            elif _less(last.high, piece.high):
                merged[-1] = Piece(last.low, piece.high, last.low_closed, piece.high_closed)
            elif same_end(last.high, piece.high):
                merged[-1] = last._replace(high_closed=last.high_closed or piece.high_closed)
        return tuple(merged)


def complement(region: Pieces) -> Pieces:
    """The real numbers outside of `region`, as `union` gives it."""
    gaps: list[Piece] = []
    low, closed = -INFINITY, False
    for piece in region:
        gaps += interval(low, piece.low, closed, not piece.low_closed)
        low, closed = piece.high, not piece.high_closed
    return (*gaps, *interval(low, INFINITY, closed, False))


def intersection(regions: Iterable[Pieces]) -> Pieces:
    """The numbers that are in all regions."""
    return complement(union(complement(union([region])) for region in regions))


def equal_regions(gold: Pieces, answer: Pieces) -> bool:
    """Whether two regions, as `union` gives them, are the same."""
    return len(gold) == len(answer) and all(
        same_end(ours.low, theirs.low) and same_end(ours.high, theirs.high) and ours[2:] == theirs[2:]
        for ours, theirs in zip(gold, answer, strict=True)
    )


def same_end(left: Any, right: Any) -> bool:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left == right
    if _infinite(left) or _infinite(right):
        return bool(left == right)
    with mp.workdps(_DIGITS):
        left, right = _key(left), _key(right)
        return bool(abs(left - right) <= mp.mpf(10) ** (5 - _DIGITS) * max(abs(left), abs(right)))


def _less(left: Any, right: Any) -> bool:
    if same_end(left, right):
        return False
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left < right
    with mp.workdps(_DIGITS):
        return bool(_key(left) < _key(right))


def _infinite(end: Any) -> bool:
    return isinstance(end, float)


def _key(end: Any) -> Any:
    return mp.mpf(end.numerator) / end.denominator if isinstance(end, Fraction) else mp.mpf(end)
