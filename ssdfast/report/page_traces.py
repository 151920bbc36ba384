"""The traces that the page carries: which ones, and in what compact form.

A trace travels as deflated columns of codes in base64, so that the browser inflates only the trace that is read.
Shape legend: N positions of one trace.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ..sharded_table import Parts
from .candidates import candidates
from .column_encoding import Column, encoded
from .sanitize import inert
from .tokens import TokenTable

MAX_TRACES = 200
MAX_BYTES = 9_700_000

TRIED = 8
SHARES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.17, 0.1, 0.05)
_CLASSES = {"lock": 0, "fork": 1, "diffuse": 2, "mixed": 3}

_OF_MODEL = {"entropy": "entropy", "nucleus": "nucleus_size", "tail": "tail_mass", "rank": "token_rank"}
_NUMBERS = {
    "kl": "kl_ab", "js": "js", "alignment": "ssd_alignment",
    **{f"{side}.{name}": f"{side}_{column}" for name, column in _OF_MODEL.items() for side in "ab"},
}  # fmt: skip
LAYOUT = {
    "token": Column(), "class": Column(), "swap": Column(), "selfCorrection": Column(),
    "kl": Column("nats"), "js": Column("nats", over="kl"), "alignment": Column("cosine"),
    "a.entropy": Column("nats"), "b.entropy": Column("nats", over="a.entropy"),
    "a.nucleus": Column(), "b.nucleus": Column(over="a.nucleus"),
    "a.tail": Column("probability"), "b.tail": Column("probability", over="a.tail"),
    "a.rank": Column(), "b.rank": Column(over="a.rank"),
    "a.probability": Column("probability"), "b.probability": Column("probability", over="a.probability"),
    "massA": Column("nats"), "massB": Column("nats", over="massA"),
    "count": Column(), "kept": Column(over="count"),
    "candidates.token": Column(),
    "candidates.a": Column("probability"), "candidates.b": Column("probability", over="candidates.a"),
    "candidates.inA": Column(), "candidates.inB": Column(over="candidates.inA"),
}  # fmt: skip
"""columns of a trace on the page: of positions, then of their candidates"""
_DETAILS = ("js", "alignment", *(f"{side}.{name}" for name in ("nucleus", "tail") for side in "ab"), "massA", "massB")
"""of positions that moved most alone, where not all positions have them"""
COLUMNS = (
    "trace_id", "problem_id", "label", "position", "token_id", "position_class", "swap", "self_correction",
    "b_at_a_top", "a_at_b_top", *_NUMBERS.values(),
    *(f"{side}_{name}" for side in "ab" for name in ("token_logprob", "top_ids", "top_logprobs")),
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


@dataclass(frozen=True)
class Embedded:
    """traces: in page form. tokens: the texts that they mention. share: of the positions, those that moved most in each
    trace, which have candidates and all numbers."""

    traces: list[dict[str, Any]]
    tokens: TokenTable
    share: float


def embed(sources: Sequence[Source], vocabulary: dict[str, str]) -> Embedded:
    """Traces drawn from those that all sources have, in page form, by problem, each once for every source.

    Where they would pass MAX_BYTES, positions that moved little go without their details; where that does not suffice,
    drawing stops before.
    """
    common = set(sources[0].where).intersection(*(one.where for one in sources))
    keys = draw(list(common))
    for share in SHARES[_affordable(sources, keys, vocabulary) :]:
        found = _embedded(sources, keys, TokenTable(vocabulary), share)
        if len(found.traces) == len(keys) * len(sources):
            break
    return found


def _embedded(sources: Sequence[Source], keys: Sequence[tuple[str, str]], tokens: TokenTable, share: float) -> Embedded:
    traces: list[dict[str, Any]] = []
    size = 0
    for key in keys:
        known = len(tokens.texts)
        found = [_page_form(one, key, tokens, share) for one in sources]
        size += _size(found)
        if size + tokens.size > MAX_BYTES:
            tokens.keep_first(known)
            break
        traces += found
    order = {one.model: place for place, one in enumerate(sources)}
    traces.sort(key=lambda trace: (_natural(trace["id"]), order.get(trace["label"], 0), trace["label"]))
    return Embedded(traces, tokens, share)


def _affordable(sources: Sequence[Source], keys: Sequence[tuple[str, str]], vocabulary: dict[str, str]) -> int:
    """The first of SHARES with which all keys may fit, by the first TRIED of them; the last where none does."""
    tried = keys[:TRIED]
    for place, share in enumerate(SHARES):
        size = _size([_page_form(one, key, TokenTable(vocabulary), share) for key in tried for one in sources])
        if size * len(keys) <= MAX_BYTES * len(tried):
            return place
    return len(SHARES) - 1


def _size(traces: Sequence[dict[str, Any]]) -> int:
    """Bytes on the page."""
    return sum(len(json.dumps(value)) + 12 for trace in traces for value in trace.values())


def _page_form(source: Source, key: tuple[str, str], tokens: TokenTable, share: float) -> dict[str, Any]:
    label, trace_id = key
    same = [("trace_id", "=", trace_id), ("label", "=", label)]
    table = source.parts.read(source.where[key], list(COLUMNS), same).sort_by("position")
    kl_N = table["kl_ab"].to_numpy()
    finite = kl_N[np.isfinite(kl_N)]
    moved_N = np.nan_to_num(kl_N, nan=-1.0)
    wanted = max(1, round(share * table.num_rows))
    wanted_N = moved_N >= np.partition(moved_N, -wanted)[-wanted]
    number = {name: table[name].to_numpy() for name in (*_NUMBERS.values(), "a_token_logprob", "b_token_logprob")}
    values = {
        "token": np.array([tokens.index(token) for token in table["token_id"].to_pylist()]),
        "class": np.array([_CLASSES.get(name, len(_CLASSES)) for name in table["position_class"].to_pylist()]),
        "swap": table["swap"].to_numpy(zero_copy_only=False),
        "selfCorrection": table["self_correction"].to_numpy(zero_copy_only=False),
        **{name: number[column] for name, column in _NUMBERS.items()},
        **{f"{side}.probability": np.exp(number[f"{side}_token_logprob"].astype(np.float64)) for side in "ab"},
        **candidates(table, tokens, source.train, source.decoding, wanted_N),
    }
    values["alignment"] = 1 + values["alignment"].astype(np.float64)
    for name in _DETAILS:
        values[name] = np.where(wanted_N, values[name], np.nan)
    return {
        "id": inert(table["trace_id"][0].as_py()),
        "problem": inert(table["problem_id"][0].as_py()),
        "label": inert(source.model or table["label"][0].as_py()),
        "positions": table.num_rows,
        "kinds": _kinds(table),
        "kl": float(f"{finite.mean():.3g}") if finite.size else None,
        "packed": encoded(LAYOUT, values),
    }


def _kinds(table: pa.Table) -> dict[str, int]:
    """How many positions of each of KINDS the trace has, where it has any."""
    kind_N = np.array(table["position_class"].to_pylist(), object)
    swap_N, turn_N = (table[name].to_numpy(zero_copy_only=False) for name in ("swap", "self_correction"))
    lock_N = kind_N == "lock"
    masks = [lock_N, *(kind_N == name for name in KINDS[1:4]), lock_N & ~swap_N, lock_N & swap_N, lock_N & turn_N]
    counts = {name: int(mask_N.sum()) for name, mask_N in zip(KINDS, masks, strict=True)}
    return {name: count for name, count in counts.items() if count}


def _natural(text: str) -> list[tuple[int, str]]:
    """Sort key that puts problem 9 before problem 10."""
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.findall(r"[0-9]+|[^0-9]+", text)]
