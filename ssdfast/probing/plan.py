"""The work of a probe, laid out before a model is loaded: which traces, in which batches, in which shard.

The longest traces come first, so that what could run out of memory does so in the first minute, and batches hold traces
of similar length, or samples of one prompt, which the models then read once.

The token ids of the traces wait in an unnamed file on disk: 10,000 traces of 20k tokens are 800 MB, and a shard needs a
few of them from anywhere in the sources.
"""

from __future__ import annotations

import hashlib
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import models, trace_checks
from ..config import ProbeConfig, dump
from ..models import ModelInfo
from .position_selection import Candidate, select_positions, select_traces, strata_counts
from .token_classes import token_texts


class TraceItem(NamedTuple):
    """A trace with positions to score, and where its ids are."""

    trace_source: str
    trace_id: str
    problem_id: str
    offset: int
    prompt_tokens: int
    prompt_hash: int
    """of the prompt's ids, which samples of one prompt have in common"""
    completion_tokens: int
    num_positions: int
    """how many are scored"""
    read_tokens: int
    """tokens that the models read, up to the last scored position"""
    correct: bool | None
    """whether its answer is correct, None where that is unknown"""


class LoadedTrace(NamedTuple):
    """A trace in memory."""

    item: TraceItem
    prompt_ids: np.ndarray
    completion_ids: np.ndarray
    positions: np.ndarray
    """int32, sorted, of the completion tokens to score"""

    @property
    def read_ids(self) -> np.ndarray:
        """The ids that the models read. The last scored token is predicted, not read."""
        return np.concatenate([self.prompt_ids, self.completion_ids])[: self.item.read_tokens]

    @property
    def rows(self) -> np.ndarray:
        """The row of `read_ids` that predicts each position: the token before it."""
        rows: np.ndarray = self.positions.astype(np.int64) + (self.item.prompt_tokens - 1)
        return rows


_LEAST_SAVED = 1 / 4
"""of `max_batch_tokens`, by a batch of samples of one prompt: small batches take as long as large ones"""

Batch = tuple[TraceItem, ...]
Shard = tuple[Batch, ...]


@dataclass(frozen=True)
class Plan:
    """All shards of a probe; `load` reads the ids of an item."""

    config: ProbeConfig
    shards: tuple[Shard, ...]
    texts: list[str]
    """of every vocabulary entry that both models have"""
    left_out: dict[str, int]
    """how many traces are not scored: too_long, empty, without_positions, not_selected"""
    strata: list[dict[str, Any]]
    """the strata from which traces were sampled, empty where all traces are taken"""
    _ids: np.ndarray

    @property
    def items(self) -> Iterator[TraceItem]:
        return (item for shard in self.shards for batch in shard for item in batch)

    def tokens(self, index: int) -> int:
        """The number of tokens that each model reads for a shard."""
        return sum(item.read_tokens for batch in self.shards[index] for item in batch)

    def num_positions(self, index: int) -> int:
        """The number of rows of a shard."""
        return sum(item.num_positions for batch in self.shards[index] for item in batch)

    def load(self, item: TraceItem) -> LoadedTrace:
        ids = self._ids_of(item)
        completion_ids = ids[item.prompt_tokens :]
        positions = _positions(self.config, completion_ids, self.texts, item)
        return LoadedTrace(item, ids[: item.prompt_tokens], completion_ids, positions)

    def batches(self, index: int) -> Iterator[list[LoadedTrace]]:
        """Of a shard, in memory one at a time."""
        return ([self.load(item) for item in batch] for batch in self.shards[index])

    def fingerprint(self, index: int) -> str:
        """A hash of the settings and the traces of a shard: of all that its bytes depend on, except models and ids."""
        settings = dump(self.config.model_copy(update={"table_dir": None}))
        items = repr([[item._replace(offset=0) for item in batch] for batch in self.shards[index]])
        return hashlib.sha256(f"{settings}\n{items}".encode()).hexdigest()[:32]

    def baseline_fingerprint(self, index: int, files: Mapping[str, str]) -> str:
        """The same of what the baseline's columns and hidden states of a shard depend on: on no trained model, and on
        what is read in place of where it is, since a study may move.

        files: sha256 of each of the baseline's files, by name.
        """
        sources = tuple(source.model_copy(update={"path": ""}) for source in self.config.traces)
        config = self.config.without_trained().model_copy(update={"baseline": "", "traces": sources})
        digest = hashlib.sha256(replace(self, config=config).fingerprint(index).encode())
        digest.update(repr((sorted(files.items()), len(self.texts))).encode())
        for batch in self.shards[index]:
            for item in batch:
                digest.update(self._ids_of(item).tobytes())
        return digest.hexdigest()[:32]

    def _ids_of(self, item: TraceItem) -> np.ndarray:
        return self._ids[item.offset : item.offset + item.prompt_tokens + item.completion_tokens]


def make_plan(config: ProbeConfig, baseline: ModelInfo, trained: Sequence[ModelInfo], rows: int | None = None) -> Plan:
    """Read all traces once and lay out the work; the same settings and traces give the same plan anywhere.

    trained: the other models that read the traces, if any. rows: how many entries of the vocabulary are compared, where
    the shards that are there already say so and all heads have as many.
    Raises ValueError for models that do not fit together, for the first trace that does not fit them, and where
    nothing is left to score.
    """
    shared = min((models.shared_vocabulary(baseline, model) for model in trained), default=baseline.vocabulary)
    texts = token_texts(baseline.tokenizer, min(shared, rows or shared))
    with tempfile.TemporaryFile() as store:
        items, left_out = _survey(config, baseline, min(model.context for model in (baseline, *trained)), texts, store)
        store.flush()
        ids = np.memmap(store, np.int32, "r") if store.tell() else np.empty(0, np.int32)
    strata: list[dict[str, Any]] = []
    if config.positions.max_traces:
        candidates = [
            Candidate(
                item.trace_source,
                item.prompt_tokens + item.completion_tokens,
                item.correct,
                _key(item.trace_source, item.trace_id),
            )
            for item in items
        ]
        selected = select_traces(candidates, config.positions.max_traces, config.seed)
        strata = strata_counts(candidates, selected)
        left_out["not_selected"] = len(items) - len(selected)
        items = [items[i] for i in selected]
    if not items:
        paths = ", ".join(source.path for source in config.traces)
        raise ValueError(
            f"there is nothing to probe: {paths} holds no completion tokens to score within the models' context."
            " Name other traces, or select other positions"
        )
    return Plan(config, tuple(_shards(config, items)), texts, left_out, strata, ids)


def _survey(
    config: ProbeConfig, model: ModelInfo, context: float, texts: Sequence[str], store: Any
) -> tuple[list[TraceItem], dict[str, int]]:
    """The items, and how many traces are left out for which reason."""
    items: list[TraceItem] = []
    left_out = {"too_long": 0, "empty": 0, "without_positions": 0}
    seen: set[str] = set()
    offset = 0
    for source in config.traces:
        for trace, _ in trace_checks.rows_for_model(Path(source.path), (), len(texts), model.tokenizer):
            key = _key(source.name, trace.trace_id)
            if key in seen:
                raise ValueError(
                    f"{trace} occurs twice under the name {source.name!r}: give each source its own, --traces NAME=PATH"
                )
            seen.add(key)
            prompt_tokens, completion_tokens = len(trace.prompt_ids), len(trace.completion_ids)
            if len(trace) > context:
                if config.on_too_long == "error":
                    raise ValueError(
                        f"{trace} has {len(trace)} tokens, the models' context is {context}:"
                        " leave such traces out with --on-too-long skip"
                    )
                left_out["too_long"] += 1
                continue
            if not completion_tokens:
                left_out["empty"] += 1
                continue
            prompt_hash = zlib.crc32(np.asarray(trace.prompt_ids, np.int32).tobytes())
            item = TraceItem(
                source.name, trace.trace_id, trace.problem_id, offset, prompt_tokens, prompt_hash, completion_tokens,
                0, 0, trace.correct,
            )  # fmt: skip
            positions = _positions(config, trace.completion_ids, texts, item)
            if not len(positions):
                left_out["without_positions"] += 1
                continue
            items.append(item._replace(num_positions=len(positions), read_tokens=prompt_tokens + int(positions[-1])))
            store.write(np.ascontiguousarray(np.concatenate([trace.prompt_ids, trace.completion_ids]), np.int32))
            offset += prompt_tokens + completion_tokens
    return items, left_out


def _positions(config: ProbeConfig, completion_ids: np.ndarray, texts: Sequence[str], item: TraceItem) -> np.ndarray:
    key = _key(item.trace_source, item.trace_id)
    return select_positions(completion_ids, config.positions, texts, config.seed, key)


def _key(trace_source: str, trace_id: str) -> str:
    return f"{trace_source}\0{trace_id}"


def _shards(config: ProbeConfig, items: list[TraceItem]) -> Iterator[Shard]:
    batches: list[Batch] = []
    positions = 0
    for batch in _batches(config.max_batch_tokens, items):
        batch_positions = sum(item.num_positions for item in batch)
        if batches and positions + batch_positions > config.positions_per_shard:
            yield tuple(batches)
            batches, positions = [], 0
        batches.append(batch)
        positions += batch_positions
    yield tuple(batches)


def _batches(max_batch_tokens: int, items: list[TraceItem]) -> Iterator[Batch]:
    """Longest first; samples of one prompt together where that saves tokens, all others by length."""
    by_prompt: dict[tuple[int, int], list[TraceItem]] = {}
    for item in items:
        by_prompt.setdefault((item.prompt_hash, item.prompt_tokens), []).append(item)
    batches: list[Batch] = []
    others: set[TraceItem] = set(items)
    for samples in by_prompt.values():
        for batch in _by_length(max_batch_tokens, samples):
            saved = sum(item.read_tokens for item in batch) - _read_tokens(batch)
            if saved >= _LEAST_SAVED * max_batch_tokens:
                batches.append(batch)
                others -= set(batch)
    batches += _by_length(max_batch_tokens, [item for item in items if item in others])
    return iter(sorted(batches, key=lambda batch: -batch[0].read_tokens))


def _read_tokens(samples: Batch) -> int:
    """Of samples of one prompt, which is read once; the rest is padded to the longest."""
    prompt = samples[0].prompt_tokens
    return prompt + len(samples) * (samples[0].read_tokens - prompt)


def _by_length(max_batch_tokens: int, items: list[TraceItem]) -> Iterator[Batch]:
    """Longest first, as many together as fit when padded to the longest; ties stay in the order of the items."""
    batch: list[TraceItem] = []
    for item in sorted(items, key=lambda item: -item.read_tokens):
        if batch and batch[0].read_tokens * (len(batch) + 1) > max_batch_tokens:
            yield tuple(batch)
            batch = []
        batch.append(item)
    if batch:
        yield tuple(batch)
