"""The columns of a trace out of a page, by way of their own."""

from __future__ import annotations

import base64
import math
import struct
import zlib

from ssdfast.report.page_traces import LAYOUT

UNITS = {"probability": (1e-4, 1e-2), "nats": (1e-3, 1e-1), "count": (1, 1), "cosine": (1e-2, 1e-2)}


def columns_of(trace: dict) -> dict:
    """{name: values}; names with a dot are groups of their own."""
    packed = zlib.decompress(base64.b64decode(trace["packed"]))
    codes, found, at = {}, {"base": {}, "trained": {}, "candidates": {}}, 0
    for name, column in LAYOUT.items():
        size = trace["positions"] if not name.startswith("candidates.") else sum(found["count"])
        planes = packed[at : at + 4 * size]
        own = [struct.unpack("<I", bytes(planes[i::size][:4]))[0] for i in range(size)]
        at += 4 * size
        if column.difference_to:
            own = [
                (-(x + 1) // 2 if x & 1 else x // 2) + y for x, y in zip(own, codes[column.difference_to], strict=True)
            ]
        codes[name] = own
        group, _, key = name.rpartition(".")
        (found[group] if group else found)[key] = [_value(code, column.scale) for code in own]
    assert at == len(packed)
    return found


def _value(code: int, scale: str) -> float | None:
    unit, least = UNITS[scale]
    if code == 2**24 - 1:
        return None
    less = scale == "cosine"
    if code < 2**20:
        value = code * unit - less
        return round(value) if scale == "count" else value
    return least * math.pow(10, (2**20 - code) / 100) - less
