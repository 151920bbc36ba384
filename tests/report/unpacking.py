"""The columns of a trace out of a page, by way of their own."""

from __future__ import annotations

import base64
import math
import struct
import zlib

from ssdfast.report.page_traces import OWN, SHARED

UNDEFINED = 2**24 - 1
DIGITS = str.maketrans(".,:", "<>&")
UNITS = {"probability": (1e-4, 1e-2), "nats": (1e-3, 1e-1), "count": (1, 1), "cosine": (1e-2, 1e-2)}


def columns_of(data: dict, trace: dict) -> dict:
    """{name: values} of a trace of a page; names with a dot are groups of their own."""
    codes, values = {}, {}
    for packed, layout in ((data["shared"][trace["shared"]], SHARED), (trace["packed"], OWN)):
        _decode(zlib.decompress(base64.b85decode(packed.translate(DIGITS))), layout, trace["positions"], codes, values)
    found = {"base": {}, "trained": {}, "candidates": {}, "more": {}}
    for name, column in values.items():
        group, _, key = name.rpartition(".")
        (found[group] if group else found)[key] = column
    return _joined(found)


def _decode(packed: bytes, layout: dict, positions: int, codes: dict, values: dict) -> None:
    at = 0
    for name, column in layout.items():
        size = positions
        if name.startswith("candidates."):
            size = sum(values["count"])
        elif name.startswith("more.") and name not in ("more.count", "more.kept"):
            size = sum(values["more.count"])
        planes = packed[at : at + 4 * size]
        own = [struct.unpack("<I", bytes(planes[i::size][:4]))[0] for i in range(size)]
        at += 4 * size
        if column.difference_to:
            own = [_plus(x, y) for x, y in zip(own, codes[column.difference_to], strict=True)]
        codes[name] = own
        values[name] = [_value(code, column.scale) for code in own]
    assert at == len(packed)


def _plus(stored: int, other: int) -> int:
    """The code of a value that is stored as a difference to another one."""
    if stored == 0:
        return UNDEFINED
    zigzag = stored - 1
    return (0 if other == UNDEFINED else other) + (-(zigzag + 1) // 2 if zigzag & 1 else zigzag // 2)


def _joined(found: dict) -> dict:
    """With the candidates that the trained model adds behind those of the baseline."""
    more = found.pop("more")
    joined = {name: [] for name in found["candidates"]}
    start, start_more = 0, 0
    for n, added in zip(found["count"], more["count"], strict=True):
        for name, values in joined.items():
            values += found["candidates"][name][start : start + n] + more[name][start_more : start_more + added]
        start, start_more = start + n, start_more + added
    kept = [None if n is None else n + m for n, m in zip(found["kept"], more["kept"], strict=True)]
    count = [n + m for n, m in zip(found["count"], more["count"], strict=True)]
    return found | {"candidates": joined, "kept": kept, "count": count}


def _value(code: int, scale: str) -> float | None:
    unit, least = UNITS[scale]
    if code == UNDEFINED:
        return None
    less = scale == "cosine"
    if code < 2**20:
        value = code * unit - less
        return round(value) if scale == "count" else value
    return least * math.pow(10, (2**20 - code) / 100) - less
