"""The traces that the page carries: which ones, and in what compact form.

A trace travels as deflated JSON of columns in base64, so that the browser inflates only the trace that is read.
Shape legend: N positions of one trace.
"""

from __future__ import annotations

import base64
import json
import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ..parts import Parts
from .candidates import candidates, probabilities, rounded
from .text import inert
from .tokens import TokenTable

MAX_TRACES = 200
MAX_BYTES = 9_700_000

_MODEL = ("entropy", "nucleus_size", "tail_mass", "token_rank", "token_logprob", "top_ids", "top_logprobs")
COLUMNS = (
    "trace_id", "problem_id", "label", "position", "token_id", "position_class", "swap", "self_correction",
    "kl_ab", "js", "ssd_alignment", "b_at_a_top", "a_at_b_top",
    *(f"{model}_{name}" for model in "ab" for name in _MODEL),
)  # fmt: skip
KINDS = ("lock", "fork", "diffuse", "mixed", "strict", "swap", "self_correction")
"""classes of positions, and of locks"""


@dataclass(frozen=True)
class Source:
    """The table of one probe."""

    parts: Parts
    where: dict[tuple[str, str], str]
    """the part of each (label, trace id)"""
    train: dict[str, Any] | None
    decoding: dict[str, Any] | None
    model: str
    """of its traces on the page; "" leaves them their own labels"""

    @staticmethod
    def of(parts: Parts, settings: dict[str, Any], model: str = "") -> Source:
        """Raises ValueError on a part that is not one, or on a trace in two parts."""
        return Source(parts, find_traces(parts), settings.get("train"), settings.get("decoding"), model)

    @property
    def drawn(self) -> dict[str, Any] | None:
        """The truncation of decoding for the page; None where the top lists do not show what it cuts."""
        d = self.decoding
        if not d or not d["top_k"]:
            return None
        return {"temperature": d["temperature"], "told": f"T {d['temperature']:g}, {truncation_told(d)}"}


def truncation_told(decoding: dict[str, Any]) -> str:
    return f"top-k {decoding['top_k']}, top-p {decoding['top_p']:g}"


def find_traces(parts: Parts) -> dict[tuple[str, str], str]:
    """Where each (label, trace id) stands. Raises ValueError on a part that is not one, or on a trace in two parts."""
    found: dict[tuple[str, str], str] = {}
    for part in parts.files():
        try:
            with parts.open(part) as file:
                missing = set(COLUMNS) - set(file.schema_arrow.names)
                if missing:
                    raise ValueError(f"{part} has no column {', '.join(sorted(missing))}: is it a part of a probe?")
                keys = file.read(columns=["label", "trace_id"]).group_by(["label", "trace_id"]).aggregate([])
        except pa.ArrowInvalid as error:
            raise ValueError(f"{part} is not a readable Parquet file ({error}): delete it and probe again") from error
        for key in zip(keys["label"].to_pylist(), keys["trace_id"].to_pylist(), strict=True):
            if key in found:
                raise ValueError(f"trace {key[1]!r} of {key[0]!r} stands in {found[key]} and in {part}: delete one")
            found[key] = part
    return found


def draw(keys: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """At most MAX_TRACES of the traces, at random with a fixed seed, in turn from each label."""
    by_label: dict[str, list[tuple[str, str]]] = {}
    for key in sorted(keys):
        by_label.setdefault(key[0], []).append(key)
    shuffle = random.Random(0).shuffle
    for group in by_label.values():
        shuffle(group)
    rounds = max(map(len, by_label.values()), default=0)
    turns = [group[i] for i in range(rounds) for group in by_label.values() if i < len(group)]
    return turns[:MAX_TRACES]


def embed(sources: Sequence[Source], tokens: TokenTable) -> list[dict[str, Any]]:
    """Traces drawn from those that all sources have, in page form, by problem, each once for every source.

    Drawing stops before the page would pass MAX_BYTES.
    """
    traces: list[dict[str, Any]] = []
    size = 0
    common = set(sources[0].where).intersection(*(one.where for one in sources))
    for key in draw(list(common)):
        known = len(tokens.texts)
        found = [_page_form(one, key, tokens) for one in sources]
        size += sum(len(json.dumps(value)) + 12 for trace in found for value in trace.values())
        if size + tokens.size > MAX_BYTES:
            tokens.keep_first(known)
            break
        traces += found
    order = {one.model: place for place, one in enumerate(sources)}
    return sorted(traces, key=lambda trace: (_natural(trace["id"]), order.get(trace["label"], 0), trace["label"]))


def _page_form(source: Source, key: tuple[str, str], tokens: TokenTable) -> dict[str, Any]:
    label, trace_id = key
    same = [("trace_id", "=", trace_id), ("label", "=", label)]
    table = source.parts.read(source.where[key], list(COLUMNS), same).sort_by("position")
    token_ids = [tokens.index(token) for token in table["token_id"].to_pylist()]
    kl = table["kl_ab"].to_numpy()
    finite = kl[np.isfinite(kl)]
    columns = {
        "token": token_ids,
        "class": "".join((name or " ")[0] for name in table["position_class"].to_pylist()),
        "swap": _bits(table["swap"]),
        "selfCorrection": _bits(table["self_correction"]),
        "kl": rounded(kl),
        "js": rounded(table["js"].to_numpy()),
        "alignment": rounded(table["ssd_alignment"].to_numpy()),
        "a": _model_columns(table, "a"),
        "b": _model_columns(table, "b"),
        "candidates": candidates(table, tokens, source.train, source.decoding),
    }
    packed = zlib.compress(json.dumps(columns, separators=(",", ":"), allow_nan=False).encode("ascii"))
    return {
        "id": inert(table["trace_id"][0].as_py()),
        "problem": inert(table["problem_id"][0].as_py()),
        "label": inert(source.model or table["label"][0].as_py()),
        "positions": table.num_rows,
        "kinds": _kinds(table),
        "kl": rounded(finite.mean(keepdims=True))[0] if finite.size else None,
        "text": "".join(tokens.texts[token] for token in token_ids),
        "packed": base64.b64encode(packed).decode("ascii"),
    }


def _kinds(table: pa.Table) -> dict[str, int]:
    """How many positions of each of KINDS the trace has, where it has any."""
    kind_N = np.array(table["position_class"].to_pylist(), object)
    swap_N, turn_N = (table[name].to_numpy(zero_copy_only=False) for name in ("swap", "self_correction"))
    lock_N = kind_N == "lock"
    masks = [lock_N, *(kind_N == name for name in KINDS[1:4]), lock_N & ~swap_N, lock_N & swap_N, lock_N & turn_N]
    counts = {name: int(mask_N.sum()) for name, mask_N in zip(KINDS, masks, strict=True)}
    return {name: count for name, count in counts.items() if count}


def _model_columns(table: pa.Table, model: str) -> dict[str, list[Any]]:
    return {
        "entropy": rounded(table[f"{model}_entropy"].to_numpy()),
        "nucleus": table[f"{model}_nucleus_size"].to_pylist(),
        "tail": rounded(table[f"{model}_tail_mass"].to_numpy()),
        "rank": table[f"{model}_token_rank"].to_pylist(),
        "probability": probabilities(table[f"{model}_token_logprob"].to_numpy()),
    }


def _bits(column: pa.ChunkedArray) -> str:
    return "".join("1" if bit else "0" for bit in column.to_pylist())


def _natural(text: str) -> list[tuple[int, str]]:
    """Sort key that puts problem 9 before problem 10."""
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.findall(r"[0-9]+|[^0-9]+", text)]
