"""The traces that the page carries: which of them, and their compact form.

A trace is stored as deflated columns of codes in base85, so that the browser inflates only the trace that is open. The
baseline's columns are stored once for all trained models.

Shape legend: N positions of one trace.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from .candidates import MODELS, base_candidates, trained_candidates
from .column_encoding import Column, encode_columns
from .probe_source import NUMBERS, Key, Source
from .sanitize import inert
from .tokens import TokenTable
from .trace_context import read_context

MAX_TRACES = 200
MAX_BYTES = 9_700_000

_TRIALS = 8
FRACTIONS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.17, 0.1, 0.05)
_CLASSES = {"lock": 0, "fork": 1, "diffuse": 2, "mixed": 3}

SHARED = {
    "token": Column(), "class": Column(), "tokenClass": Column(), "selfCorrection": Column(),
    **{f"base.{name}": column for name, column in (
        ("entropy", Column("nats")), ("nucleus", Column()), ("tail", Column("probability")), ("rank", Column()),
        ("probability", Column("probability")),
    )},
    "baseMass": Column("nats"), "count": Column(), "kept": Column("count", "count"), "candidates.token": Column(),
    "candidates.base": Column("probability"), "candidates.inBase": Column(),
}  # fmt: skip
"""columns of a trace on the page that depend on the baseline alone: of positions, then of their candidates"""
OWN = {
    "top1Changed": Column(), "kl": Column("nats"), "js": Column("nats", "kl"), "alignment": Column("cosine"),
    **{f"trained.{name}": Column(SHARED[f"base.{name}"].scale, f"base.{name}") for name in (
        "entropy", "nucleus", "tail", "rank", "probability",
    )},
    "trainedMass": Column("nats", "baseMass"), "more.count": Column(), "more.kept": Column("count", "more.count"),
    "candidates.trained": Column("probability", "candidates.base"),
    "candidates.inTrained": Column("count", "candidates.inBase"),
    "more.token": Column(), "more.base": Column("probability"), "more.trained": Column("probability", "more.base"),
    "more.inBase": Column(), "more.inTrained": Column("count", "more.inBase"),
}  # fmt: skip
"""those of one trained model"""
_DETAILS = (
    "js", "alignment", *(f"{model}.{name}" for name in ("entropy", "nucleus", "tail") for model in MODELS),
    "baseMass", "trainedMass",
)  # fmt: skip
"""only of the positions that shifted most, where the page has no room for those of all"""
KINDS = ("lock", "fork", "diffuse", "mixed", "strict", "top1_changed", "self_correction")
"""position classes, and kinds of lock"""


def sample_traces(keys: list[Key]) -> list[Key]:
    """At most MAX_TRACES of the traces, at random with a fixed seed, in turn from each trace source."""
    by_trace_source: dict[str, list[Key]] = {}
    for key in sorted(keys):
        by_trace_source.setdefault(key[0], []).append(key)
    shuffle = random.Random(0).shuffle
    for group in by_trace_source.values():
        shuffle(group)
    rounds = max(map(len, by_trace_source.values()), default=0)
    turns = [group[i] for i in range(rounds) for group in by_trace_source.values() if i < len(group)]
    return turns[:MAX_TRACES]


@dataclass(frozen=True)
class Embedded:
    """traces: in page form. tokens: the texts that they mention. fraction: of a trace's positions, those that shifted
    most, which have candidates and all numbers."""

    traces: list[dict[str, Any]]
    tokens: TokenTable
    fraction: float
    about: list[dict[str, Any]]
    """what traces answer, each once for all sources; a trace's `about` is its place"""
    shared: list[str]
    """the baseline's columns, each once for all sources; a trace's `shared` is its place"""
    token_classes: list[str]


def embed(sources: Sequence[Source], vocabulary: dict[int, str]) -> Embedded:
    """A sample of the traces that all sources have, in page form, by problem, each once for every source.

    Where they would exceed MAX_BYTES, positions that shifted little have no details; where that does not suffice, the
    sample is smaller.
    """
    common = set(sources[0].files).intersection(*(source.files for source in sources))
    keys = sample_traces(list(common))
    context = read_context(sources[0].settings.traces, keys, vocabulary)
    classes = TokenClassNames()
    for fraction in FRACTIONS[_first_affordable(sources, keys, vocabulary) :]:
        embedded = _embed(sources, keys, TokenTable(vocabulary), fraction, context, classes)
        if len(embedded.traces) == len(keys) * len(sources):
            break
    return embedded


class TokenClassNames:
    """The token classes of the embedded positions, numbered in the order in which they occur."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def codes(self, table: pa.Table) -> np.ndarray:
        """int64 [N]; UNDEFINED without the column."""
        if "token_class" not in table.column_names:
            return np.full(table.num_rows, np.nan)
        column = [inert(name) for name in table["token_class"].to_pylist()]
        self.names += [name for name in dict.fromkeys(column) if name not in self.names]
        return np.array([self.names.index(name) for name in column], np.float64)


def _embed(
    sources: Sequence[Source],
    keys: Sequence[Key],
    tokens: TokenTable,
    fraction: float,
    context: Mapping[Key, dict[str, Any]],
    classes: TokenClassNames,
) -> Embedded:
    traces: list[dict[str, Any]] = []
    about: list[dict[str, Any]] = []
    shared: dict[str, int] = {}
    size = 0
    for key in keys:
        known = len(tokens.texts)
        page_forms = _page_forms(sources, key, tokens, fraction, classes)
        known_context = context.get(key)
        size += _size([*page_forms, known_context or {}])
        if size + tokens.size > MAX_BYTES:
            tokens.keep_first(known)
            break
        if known_context:
            page_forms = [page_form | {"about": len(about)} for page_form in page_forms]
            about.append(known_context)
        for page_form in page_forms:
            page_form["shared"] = shared.setdefault(page_form["shared"], len(shared))
        traces += page_forms
    order = {source.model: place for place, source in enumerate(sources)}
    traces.sort(key=lambda trace: (_natural(trace["id"]), order.get(trace["label"], 0), trace["label"]))
    return Embedded(traces, tokens, fraction, about, list(shared), classes.names)


def _first_affordable(sources: Sequence[Source], keys: Sequence[Key], vocabulary: dict[int, str]) -> int:
    """The first of FRACTIONS with which all keys may fit, estimated from a few of them; the last where none does."""
    trial = keys[:_TRIALS]
    for place, fraction in enumerate(FRACTIONS):
        sizes = [_size(_page_forms(sources, key, TokenTable(vocabulary), fraction, TokenClassNames())) for key in trial]
        if sum(sizes) * len(keys) <= MAX_BYTES * len(trial):
            return place
    return len(FRACTIONS) - 1


def _size(traces: Sequence[dict[str, Any]]) -> int:
    """Bytes on the page; what several traces share counts once."""
    once = {str(trace.get("shared", "")) for trace in traces}
    own = (value for trace in traces for name, value in trace.items() if name != "shared")
    return sum(map(len, once)) + sum(len(json.dumps(value)) + 12 for value in own) + 12 * len(traces)


def _page_forms(
    sources: Sequence[Source], key: Key, tokens: TokenTable, fraction: float, classes: TokenClassNames
) -> list[dict[str, Any]]:
    """A trace under each source. Positions that shifted most under any of them have details."""
    tables = [source.read_trace(key) for source in sources]
    details: dict[bytes, np.ndarray] = {}
    places = [table["position"].to_numpy().tobytes() for table in tables]
    for place, table in zip(places, tables, strict=True):
        shift_N = np.nan_to_num(table["kl_trained_base"].to_numpy(), nan=-1.0)
        details[place] = np.maximum(details.get(place, shift_N), shift_N)
    forms = []
    for source, table, place in zip(sources, tables, places, strict=True):
        count = max(1, round(fraction * table.num_rows))
        detailed_N = details[place] >= np.partition(details[place], -count)[-count]
        forms.append(_page_form(source, table, tokens, detailed_N, classes))
    return forms


def _page_form(
    source: Source, table: pa.Table, tokens: TokenTable, detailed_N: np.ndarray, classes: TokenClassNames
) -> dict[str, Any]:
    """A trace under one source, with the baseline's columns in `shared`."""
    kl_N = table["kl_trained_base"].to_numpy()
    finite = kl_N[np.isfinite(kl_N)]
    names = (*NUMBERS.values(), "base_token_logprob", "trained_token_logprob")
    columns = {name: table[name].to_numpy() for name in names}
    sampling = source.settings.train_sampling, source.settings.eval_sampling
    values = {
        "token": np.array([tokens.index(token) for token in table["token_id"].to_pylist()]),
        "class": np.array([_CLASSES.get(name, len(_CLASSES)) for name in table["position_class"].to_pylist()]),
        "tokenClass": classes.codes(table),
        "top1Changed": table["top1_changed"].to_numpy(zero_copy_only=False),
        "selfCorrection": table["self_correction"].to_numpy(zero_copy_only=False),
        **{name: columns[column] for name, column in NUMBERS.items()},
        **{f"{model}.probability": np.exp(columns[f"{model}_token_logprob"].astype(np.float64)) for model in MODELS},
        **base_candidates(table, tokens, *sampling, detailed_N),
    }
    values |= trained_candidates(table, tokens, *sampling, detailed_N)
    values["alignment"] = 1 + values["alignment"].astype(np.float64)
    for name in _DETAILS:
        values[name] = np.where(detailed_N, values[name], np.nan)
    return {
        "id": inert(table["trace_id"][0].as_py()),
        "problem": inert(table["problem_id"][0].as_py()),
        "label": inert(source.model or table["trace_source"][0].as_py()),
        "positions": table.num_rows,
        "kinds": _kinds(table),
        "kl": float(f"{finite.mean():.3g}") if finite.size else None,
        "shared": encode_columns(SHARED, values),
        "packed": encode_columns(OWN, values),
    }


def _kinds(table: pa.Table) -> dict[str, int]:
    """How many positions of each of KINDS the trace has, where it has any."""
    kind_N = np.array(table["position_class"].to_pylist(), object)
    changed_N, correction_N = (
        table[name].to_numpy(zero_copy_only=False) for name in ("top1_changed", "self_correction")
    )
    lock_N = kind_N == "lock"
    masks = [
        lock_N,
        *(kind_N == name for name in KINDS[1:4]),
        lock_N & ~changed_N,
        lock_N & changed_N,
        lock_N & correction_N,
    ]
    counts = {name: int(mask_N.sum()) for name, mask_N in zip(KINDS, masks, strict=True)}
    return {name: count for name, count in counts.items() if count}


def _natural(text: str) -> list[tuple[int, str]]:
    """Sort key that puts problem 9 before problem 10."""
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.findall(r"[0-9]+|[^0-9]+", text)]
