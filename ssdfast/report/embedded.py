"""The traces that the page carries: which ones, and in what compact form.

A trace travels as deflated JSON of columns in base64, so that the browser inflates only the trace that is read.
Shape legend: N positions of one trace, K length of the stored top lists.
"""

from __future__ import annotations

import base64
import json
import random
import re
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ..parts import Parts
from .text import inert

MAX_TRACES = 200
MAX_BYTES = 9_700_000
TOP_SHOWN = 8
ALWAYS_SHOWN = 3
VISIBLE = 0.0005

_MODEL = ("entropy", "nucleus_size", "tail_mass", "token_rank", "token_logprob", "top_ids", "top_logprobs")
COLUMNS = (
    "trace_id", "problem_id", "label", "position", "token_id", "position_class", "swap", "self_correction",
    "kl_ab", "js", "ssd_alignment", "b_at_a_top", "a_at_b_top",
    *(f"{model}_{name}" for model in "ab" for name in _MODEL),
)  # fmt: skip


@dataclass
class TokenTable:
    """The texts of the tokens that the page mentions, each once, in order of first use."""

    vocabulary: dict[str, str]
    place: dict[int, int] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    size: int = 0  # bytes that the table takes on the page

    def index(self, token_id: int) -> int:
        if token_id not in self.place:
            self.place[token_id] = len(self.texts)
            text = inert(self.vocabulary.get(str(token_id), f"⟨token {token_id}⟩"))
            self.texts.append(text)
            self.size += len(json.dumps(text)) + len(str(token_id)) + 2
        return self.place[token_id]

    def keep_first(self, count: int) -> None:
        """Forget the tokens that came after the first ``count``."""
        self.place = dict(list(self.place.items())[:count])
        del self.texts[count:]


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


def embed(
    parts: Parts, where: dict[tuple[str, str], str], tokens: TokenTable, train: dict[str, Any] | None
) -> list[dict[str, Any]]:
    """The drawn traces in page form, by problem; drawing stops before the page would pass MAX_BYTES."""
    traces: list[dict[str, Any]] = []
    size = 0
    for label, trace_id in draw(list(where)):
        same = [("trace_id", "=", trace_id), ("label", "=", label)]
        known = len(tokens.texts)
        table = parts.read(where[label, trace_id], list(COLUMNS), same).sort_by("position")
        trace = _page_form(table, tokens, train)
        size += sum(len(json.dumps(value)) + 12 for value in trace.values())
        if size + tokens.size > MAX_BYTES:
            tokens.keep_first(known)
            break
        traces.append(trace)
    return sorted(traces, key=lambda trace: (_natural(trace["id"]), trace["label"]))


def _page_form(table: pa.Table, tokens: TokenTable, train: dict[str, Any] | None) -> dict[str, Any]:
    token_ids = [tokens.index(token) for token in table["token_id"].to_pylist()]
    kl = table["kl_ab"].to_numpy()
    finite = kl[np.isfinite(kl)]
    columns = {
        "token": token_ids,
        "class": "".join((name or " ")[0] for name in table["position_class"].to_pylist()),
        "swap": _bits(table["swap"]),
        "selfCorrection": _bits(table["self_correction"]),
        "kl": _rounded(kl),
        "js": _rounded(table["js"].to_numpy()),
        "alignment": _rounded(table["ssd_alignment"].to_numpy()),
        "a": _model_columns(table, "a"),
        "b": _model_columns(table, "b"),
        "candidates": _candidates(table, tokens, train),
    }
    packed = zlib.compress(json.dumps(columns, separators=(",", ":"), allow_nan=False).encode("ascii"))
    return {
        "id": inert(table["trace_id"][0].as_py()),
        "problem": inert(table["problem_id"][0].as_py()),
        "label": inert(table["label"][0].as_py()),
        "positions": table.num_rows,
        "kl": _rounded(finite.mean(keepdims=True))[0] if finite.size else None,
        "text": "".join(tokens.texts[token] for token in token_ids),
        "packed": base64.b64encode(packed).decode("ascii"),
    }


def _model_columns(table: pa.Table, model: str) -> dict[str, list[Any]]:
    return {
        "entropy": _rounded(table[f"{model}_entropy"].to_numpy()),
        "nucleus": table[f"{model}_nucleus_size"].to_pylist(),
        "tail": _rounded(table[f"{model}_tail_mass"].to_numpy()),
        "rank": table[f"{model}_token_rank"].to_pylist(),
        "probability": _probabilities(table[f"{model}_token_logprob"].to_numpy()),
    }


def _candidates(table: pa.Table, tokens: TokenTable, train: dict[str, Any] | None) -> dict[str, list[Any]]:
    """Flat columns of the union of both models' first TOP_SHOWN, in the baseline's order.

    ``count`` candidates belong to each position, and the first ``kept`` of them survive the truncation that the
    training samples were drawn with (None where that cannot be derived). Beyond each model's first ALWAYS_SHOWN,
    a candidate must reach VISIBLE in one of the models.
    """
    a_ids, b_ids = _wide(table, "a_top_ids").tolist(), _wide(table, "b_top_ids").tolist()
    support = train_support(_wide(table, "a_top_logprobs"), train)
    heads = [
        (ids, *(_probabilities(_wide(table, name)[:, :TOP_SHOWN]) for name in names))
        for ids, names in ((a_ids, ("a_top_logprobs", "b_at_a_top")), (b_ids, ("a_at_b_top", "b_top_logprobs")))
    ]
    flat: dict[str, list[Any]] = {"count": [], "kept": [], "token": [], "a": [], "b": []}
    for n in range(table.num_rows):
        rank = {token: place for place, token in enumerate(a_ids[n])}
        union = {
            token: (p_a, p_b)
            for ids, at_a, at_b in heads
            for place, (token, p_a, p_b) in enumerate(zip(ids[n], at_a[n], at_b[n], strict=False))
            if token >= 0 and (place < ALWAYS_SHOWN or max(p_a or 0, p_b or 0) >= VISIBLE)
        }
        ranked = sorted(union.items(), key=lambda item: (rank.get(item[0], len(rank)), -(item[1][0] or 0)))
        flat["count"].append(len(ranked))
        flat["token"] += [tokens.index(token) for token, _ in ranked]
        flat["a"] += [p_a for _, (p_a, _) in ranked]
        flat["b"] += [p_b for _, (_, p_b) in ranked]
        flat["kept"].append(None if support is None else sum(rank.get(t, len(rank)) < support[n] for t in union))
    return flat


def train_support(a_top_logprobs_NK: np.ndarray, train: dict[str, Any] | None) -> list[int] | None:
    """How many of the baseline's most likely tokens the training samples could hold, at each of N positions.

    None where the setting is unknown or keeps more tokens than the top lists hold.
    """
    top_k = (train or {}).get("top_k", 0)
    if train is None or not 1 <= top_k <= a_top_logprobs_NK.shape[1]:
        return None
    logits_NK = a_top_logprobs_NK[:, :top_k].astype(np.float64) / train["temperature"]
    possible_N = np.isfinite(logits_NK).sum(1)
    if train["top_p"] == 1:
        return possible_N.tolist()
    weights_NK = np.exp(np.nan_to_num(logits_NK - logits_NK.max(1, keepdims=True), nan=-np.inf))
    mass_NK = weights_NK.cumsum(1) / np.maximum(weights_NK.sum(1, keepdims=True), 1e-300)
    return np.minimum((mass_NK < train["top_p"]).sum(1) + 1, possible_N).tolist()


def _wide(table: pa.Table, name: str) -> np.ndarray:
    flat = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(table.num_rows, -1)


def _bits(column: pa.ChunkedArray) -> str:
    return "".join("1" if bit else "0" for bit in column.to_pylist())


def _rounded(values: np.ndarray) -> list[float | None]:
    """Three significant digits; None for NaN and infinities."""
    return [float(f"{x:.3g}") if np.isfinite(x) else None for x in values.tolist()]


def _probabilities(logprobs: np.ndarray) -> Any:
    """Probabilities as lists of the array's shape: four decimals, or two digits below 0.001; None for NaN."""
    if logprobs.ndim == 2:
        flat, width = _probabilities(logprobs.ravel()), logprobs.shape[1]
        return [flat[i : i + width] for i in range(0, len(flat), width)]
    exact = np.exp(logprobs.astype(np.float64))
    rounded = exact.round(4).tolist()
    return [
        r if p >= 0.001 else float(f"{p:.2g}") if p == p else None for p, r in zip(exact.tolist(), rounded, strict=True)
    ]


def _natural(text: str) -> list[tuple[int, str]]:
    """Sort key that puts problem 9 before problem 10."""
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.findall(r"[0-9]+|[^0-9]+", text)]
