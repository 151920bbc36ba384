"""Columns of numbers as a page carries them: whole numbers in as few bytes as they need, deflated, in base85.

A column is 32-bit numbers stored byte by byte, the lowest bytes of all first: what is small then compresses to one
byte. Trained models differ little from their baseline, so a column may be stored as the difference from another one:
twice its size, one less where it is negative, plus 1, and 0 where the value is undefined.

Shape legend: N entries of a column.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

UNDEFINED = 2**24 - 1
_IN_HTML = str.maketrans("<>&", ".,:")
"""for the digits of base85 that HTML has another use for"""
_SMALL = 2**20
"""codes from here on are of logarithms"""
_A_DECADE = 100


@dataclass(frozen=True)
class Scale:
    """How numbers of 0 and more become codes: multiples of `unit` from `least` on, and two digits below it."""

    unit: float
    least: float

    def codes(self, values_N: np.ndarray) -> np.ndarray:
        """int64 [N]; UNDEFINED for NaN, infinities and what is below 0."""
        values_N = np.asarray(values_N, np.float64)
        known_N = np.isfinite(values_N) & (values_N >= 0)
        whole_N = np.where(known_N, np.clip(values_N, 0, self.unit * (_SMALL - 1)), 0)
        with np.errstate(divide="ignore"):
            decades_N = np.minimum(np.log10(self.least) - np.log10(whole_N), 40)
        small_N = np.where(whole_N > 0, _SMALL + np.round(_A_DECADE * decades_N), 0)
        codes_N = np.where(whole_N >= self.least, np.round(whole_N / self.unit), small_N)
        return np.where(known_N, codes_N, UNDEFINED).astype(np.int64)


SCALES = {
    "probability": Scale(1e-4, 1e-2),
    "nats": Scale(1e-3, 1e-1),
    "count": Scale(1, 1),
    "cosine": Scale(1e-2, 1e-2),
}
"""cosine: of 1 more than it, which is not negative"""


@dataclass(frozen=True)
class Column:
    scale: str = "count"
    difference_to: str = ""
    """the column, of the same scale, that this one is stored as a difference to"""


def encode_columns(columns: Mapping[str, Column], values: Mapping[str, np.ndarray]) -> str:
    """The columns in their order, as `decode` of the page reads them. values: also of columns that others are stored
    as the difference to."""
    pieces = []
    for name, column in columns.items():
        scale = SCALES[column.scale]
        codes_N = scale.codes(values[name])
        if column.difference_to:
            other_N = scale.codes(values[column.difference_to])
            difference_N = codes_N - np.where(other_N == UNDEFINED, 0, other_N)
            zigzag_N = np.where(difference_N >= 0, 2 * difference_N, -2 * difference_N - 1)
            codes_N = np.where(codes_N == UNDEFINED, 0, zigzag_N + 1)
        pieces.append(codes_N.astype("<u4").view(np.uint8).reshape(-1, 4).T.tobytes())
    return base64.b85encode(zlib.compress(b"".join(pieces), 9)).decode("ascii").translate(_IN_HTML)


def describe_columns(columns: Mapping[str, Column]) -> list[list[str | float]]:
    """The columns for the page: name, unit and least of its scale, whether 1 is subtracted, and the base column."""
    return [
        [
            name,
            SCALES[column.scale].unit,
            SCALES[column.scale].least,
            int(column.scale == "cosine"),
            column.difference_to,
        ]
        for name, column in columns.items()
    ]
