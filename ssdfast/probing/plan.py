"""What a probe has to do, found out before a model is loaded: which traces, batched how, written in which part.

Longest first, so that what could run out of memory does so in the first minute and batches hold traces of one length.

The token ids of the traces wait in an unnamed file on disk: 10,000 traces of 20k tokens are 800 MB, and a part wants a
few of them from anywhere in the sources.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import models, traces
from ..config import ProbeConfig, dump
from ..models import Outline
from .position_selection import Described, carriers, select, strata
from .token_classes import texts


class Item(NamedTuple):
    """A trace with positions to score, by where its ids are."""

    label: str
    trace_id: str
    problem_id: str
    offset: int
    prompt: int
    """tokens"""
    completion: int
    """tokens"""
    positions: int
    """how many are scored"""
    reach: int
    """tokens that the models read, up to the last scored position"""
    correct: bool | None
    """whether its answer was right, None where that is not known"""


class Scored(NamedTuple):
    """A trace in memory."""

    item: Item
    prompt_ids: np.ndarray
    completion_ids: np.ndarray
    positions: np.ndarray
    """int32, sorted, of the completion tokens to score"""

    @property
    def read_ids(self) -> np.ndarray:
        """What the models read: the last token scored is predicted, not read."""
        return np.concatenate([self.prompt_ids, self.completion_ids])[: self.item.reach]

    @property
    def rows(self) -> np.ndarray:
        """The row of `read_ids` that predicts each position: completion token j by the token before it."""
        rows: np.ndarray = self.positions.astype(np.int64) + (self.item.prompt - 1)
        return rows


Batch = tuple[Item, ...]
Part = tuple[Batch, ...]


@dataclass(frozen=True)
class Plan:
    """All parts of a probe; `trace` brings an item's ids."""

    config: ProbeConfig
    parts: tuple[Part, ...]
    texts: list[str]
    """of every vocabulary entry"""
    left_out: dict[str, int]
    """traces that are not scored: overlong, without a completion, without a position, not among the carriers"""
    strata: list[dict[str, Any]]
    """what carriers were drawn from, empty where all traces were taken"""
    _ids: np.ndarray

    @property
    def items(self) -> Iterator[Item]:
        return (item for part in self.parts for batch in part for item in batch)

    def tokens(self, index: int) -> int:
        """That each model reads for a part."""
        return sum(item.reach for batch in self.parts[index] for item in batch)

    def positions(self, index: int) -> int:
        """That a part has rows for."""
        return sum(item.positions for batch in self.parts[index] for item in batch)

    def trace(self, item: Item) -> Scored:
        ids = self._ids[item.offset : item.offset + item.prompt + item.completion]
        completion = ids[item.prompt :]
        return Scored(item, ids[: item.prompt], completion, _select(self.config, completion, self.texts, item))

    def fingerprint(self, index: int) -> str:
        """Of the settings and the traces of a part: what its bytes depend on, models and ids themselves apart."""
        settings = dump(self.config.model_copy(update={"parts": None}))
        told = repr([[item._replace(offset=0) for item in batch] for batch in self.parts[index]])
        return hashlib.sha256(f"{settings}\n{told}".encode()).hexdigest()[:32]


def make_plan(config: ProbeConfig, a: Outline, b: Outline) -> Plan:
    """Read all traces once and lay out the work; the same settings and traces give the same plan anywhere.

    Raises ValueError for models that do not fit together, for the first trace that does not fit them, and where
    nothing is left to score.
    """
    models.check_same_vocabulary(a, b)
    of_token = texts(a.tokenizer, a.vocabulary)
    with tempfile.TemporaryFile() as store:
        items, left_out = _survey(config, min(a.context, b.context), a.vocabulary, of_token, store)
        store.flush()
        ids = np.memmap(store, np.int32, "r") if store.tell() else np.empty(0, np.int32)
    drawn: list[dict[str, Any]] = []
    if config.positions.carriers:
        described = [Described(i.label, i.prompt + i.completion, i.correct, _key(i.label, i.trace_id)) for i in items]
        chosen = carriers(described, config.positions.carriers, config.seed)
        drawn = strata(described, chosen)
        left_out["not_carriers"] = len(items) - len(chosen)
        items = [items[i] for i in chosen]
    if not items:
        where = ", ".join(source.path for source in config.traces)
        raise ValueError(
            f"there is nothing to probe: {where} holds no completion tokens to score within the models' context"
        )
    return Plan(config, tuple(_parts(config, items)), of_token, left_out, drawn, ids)


def _survey(
    config: ProbeConfig, context: float, vocabulary: int, of_token: Sequence[str], store: Any
) -> tuple[list[Item], dict[str, int]]:
    """The items, and how many traces were left out for which reason."""
    found: list[Item] = []
    left_out = {"overlong": 0, "empty": 0, "without_positions": 0}
    seen: set[str] = set()
    offset = 0
    for source in config.traces:
        for trace in traces.read(Path(source.path)):
            key = _key(source.label, trace.trace_id)
            if key in seen:
                raise ValueError(
                    f"{trace} is there twice under the label {source.label!r}: give each source its own label"
                )
            seen.add(key)
            traces.check_ids(trace, vocabulary)
            prompt, completion = len(trace.prompt_ids), len(trace.completion_ids)
            if len(trace) > context:
                if config.overlong == "error":
                    raise ValueError(
                        f"{trace} has {len(trace)} tokens, the models' context is {context}:"
                        " leave such traces out with --overlong skip"
                    )
                left_out["overlong"] += 1
                continue
            if not completion:
                left_out["empty"] += 1
                continue
            item = Item(source.label, trace.trace_id, trace.problem_id, offset, prompt, completion, 0, 0, trace.correct)
            positions = _select(config, trace.completion_ids, of_token, item)
            if not len(positions):
                left_out["without_positions"] += 1
                continue
            item = item._replace(positions=len(positions), reach=prompt + int(positions[-1]))
            found.append(item)
            store.write(np.ascontiguousarray(np.concatenate([trace.prompt_ids, trace.completion_ids]), np.int32))
            offset += prompt + completion
    return found, left_out


def _select(config: ProbeConfig, completion_ids: np.ndarray, of_token: Sequence[str], item: Item) -> np.ndarray:
    return select(completion_ids, config.positions, of_token, config.seed, _key(item.label, item.trace_id))


def _key(label: str, trace_id: str) -> str:
    return f"{label}\0{trace_id}"


def _parts(config: ProbeConfig, items: list[Item]) -> Iterator[Part]:
    batches: list[Batch] = []
    positions = 0
    for batch in _batches(config.batch_tokens, items):
        more = sum(item.positions for item in batch)
        if batches and positions + more > config.part_positions:
            yield tuple(batches)
            batches, positions = [], 0
        batches.append(batch)
        positions += more
    yield tuple(batches)


def _batches(batch_tokens: int, items: list[Item]) -> Iterator[Batch]:
    """Longest first, as many together as fit when padded to the longest; ties stay in the order of the sources."""
    batch: list[Item] = []
    for item in sorted(items, key=lambda item: -item.reach):
        if batch and batch[0].reach * (len(batch) + 1) > batch_tokens:
            yield tuple(batch)
            batch = []
        batch.append(item)
    yield tuple(batch)
