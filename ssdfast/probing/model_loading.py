"""A baseline and trained models, with memory for a pair or for one model at a time.

===========  ==========================================  ==============================================================
mode         memory                                      time
===========  ==========================================  ==============================================================
both         both models, one shard's table              each trace passes both models
sequential   the larger model, the baseline's lm_head,   the same; per `max_spill_gb` of hidden states each model is
             one shard's hidden states and table         loaded once, and the states are written and read
===========  ==========================================  ==============================================================

In mode `sequential` the baseline's hidden states wait on disk (`baseline_states`), and its lm_head stays in memory when
the rest of the model is freed. The statistics get the same operands, so both modes write the same bytes.

Several trained models follow one pass of the baseline, one after the other in mode `sequential`: for six of them the
traces are read seven times and not twelve, and memory is that of one. A Ray actor has both models of each pair in turn.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import torch
from torch import Tensor

from .. import memory_usage, models
from ..config import ExecutionConfig
from ..kernels import LmHead
from ..models import ModelInfo
from .baseline_states import BaselineStates
from .plan import LoadedTrace, Plan
from .position_stats import Failure, ScoredTrace, TableBuilder, forward
from .reader import Reader
from .targets import Target
from .token_classes import TokenClasses

# Beside the weights: the kernels' workspace, a chunk's activations, a shard's hidden states and table.
_WORKSPACE_BYTES = 2 << 30

Failed = list[dict[str, str]]  # trace_source, trace_id and reason of the traces that failed


@dataclass(frozen=True)
class FinishedShard:
    """The rows of a shard of one trained model."""

    target: Target
    index: int
    table: pa.Table
    failed: Failed
    of_baseline: Callable[[], tuple[pa.Table, Failed]]
    """makes the rows of the baseline alone, those of traces that the trained model failed on among them"""


def load(outline: ModelInfo, dtype: str) -> Reader:
    """Raises ValueError as `models.load`, and for a model whose vocabulary differs from its config.json."""
    model = models.load(outline.path, dtype)
    if model.vocabulary != outline.vocabulary:
        raise ValueError(
            f"{outline.path}: config.json has vocab_size {outline.vocabulary}, lm_head has {model.vocabulary} rows:"
            " correct the one that is wrong"
        )
    return Reader(model)


def both_fit(baseline: ModelInfo, trained: ModelInfo, dtype: str) -> bool:
    """Whether the weights of both models and the workspace fit into free memory."""
    if not (baseline.parameters and trained.parameters):
        return True
    weights = (baseline.parameters + trained.parameters) * getattr(torch, dtype).itemsize
    return weights + _WORKSPACE_BYTES <= memory_usage.free_bytes()


@dataclass
class Prober:
    """Makes shards of a plan, of one or several trained models."""

    plan: Plan
    baseline: ModelInfo
    targets: Sequence[Target]
    classes: TokenClasses
    execution: ExecutionConfig
    states: BaselineStates
    _base: Reader | None = None
    _trained: Reader | None = None

    def shards(self, todo: Mapping[str, Sequence[int]], advance: Callable[[int], object]) -> Iterator[FinishedShard]:
        """The shards of these indices of each target, by its name. Calls `advance` with the number of tokens after each
        forward pass.

        A shard counts as written when the next one is requested; only then hidden states that nothing else needs are
        deleted.
        """
        yield from (self._with_both if self.loads_both else self._sequentially)(todo, advance)

    def baseline_shards(
        self, indices: Sequence[int], advance: Callable[[int], object]
    ) -> Iterator[tuple[int, pa.Table, Failed]]:
        """These shards of the baseline alone, with their indices; `advance` and deletion as in `shards`."""
        base = load(self.baseline, self.plan.config.dtype) if indices else None
        for index in indices:
            assert base
            self.states.write(index, base, advance)
            table, failed = self._of_baseline(index, base.model.head)
            yield index, table, failed
            self.states.release(index)

    def keep_only(self, target: Target) -> None:
        """Make shards of this target alone from now on; the model of another one is freed, the baseline stays."""
        if self.targets != [target]:
            self.targets = [target]
            self._trained = None
            _release()

    @property
    def loads_both(self) -> bool:
        """Whether both models of a pair are in memory together."""
        mode, first = self.execution.model_loading, self.targets[0]
        if self.states.stay or (first.baseline and self.execution.engine == "local"):
            return False
        return mode == "both" or (mode == "auto" and both_fit(self.baseline, first.trained, self.plan.config.dtype))

    def _with_both(
        self, todo: Mapping[str, Sequence[int]], advance: Callable[[int], object]
    ) -> Iterator[FinishedShard]:
        (target,), dtype = self.targets, self.plan.config.dtype
        base = self._base = self._base or load(self.baseline, dtype)
        trained = self._trained = self._trained or load(target.trained, dtype)
        for index in todo[target.name]:
            if target.baseline:
                self.states.write(index, base, advance)
                yield self._finish(target, index, base.model.head, trained, advance)
            else:
                failed: Failed = []
                builder = TableBuilder.from_heads(base.model.head, trained.model.head, self.classes, target.config)
                table = builder.build(self._run_both(index, base, trained, failed, advance))
                yield FinishedShard(target, index, table, failed, _none)

    def _run_both(
        self, index: int, base: Reader, trained: Reader, failed: Failed, advance: Callable[[int], object]
    ) -> Iterator[ScoredTrace]:
        chunk_tokens = self.plan.config.max_batch_tokens
        for batch in self.plan.batches(index):
            base_results = forward(base.model, base.way, batch, chunk_tokens)
            trained_results = forward(trained.model, trained.way, batch, chunk_tokens)
            yield from _pairs(batch, base_results, trained_results, failed)
            advance(2 * sum(trace.item.read_tokens for trace in batch))

    def _sequentially(
        self, todo: Mapping[str, Sequence[int]], advance: Callable[[int], object]
    ) -> Iterator[FinishedShard]:
        last = {index: target.name for target in self.targets for index in todo[target.name]}
        for group in self.states.groups(sorted(last)):
            base = load(self.baseline, self.plan.config.dtype)
            for index in group:
                self.states.write(index, base, advance)
            base_head = base.model.head
            del base
            _release()
            for target in self.targets:
                indices = [index for index in group if index in todo[target.name]]
                trained = load(target.trained, self.plan.config.dtype) if indices else None
                for index in indices:
                    assert trained
                    yield self._finish(target, index, base_head, trained, advance)
                    if last[index] == target.name:
                        self.states.release(index)
                del trained
                _release()

    def _finish(
        self, target: Target, index: int, base_head: LmHead, trained: Reader, advance: Callable[[int], object]
    ) -> FinishedShard:
        """A shard from the baseline's hidden states on disk."""
        failed: Failed = []
        builder = TableBuilder.from_heads(base_head, trained.model.head, self.classes, target.config)
        table = builder.build(self._run_trained(index, trained, failed, advance))
        return FinishedShard(target, index, table, failed, lambda: self._of_baseline(index, base_head))

    def _run_trained(
        self, index: int, trained: Reader, failed: Failed, advance: Callable[[int], object]
    ) -> Iterator[ScoredTrace]:
        with self.states.read(index, trained.model.device) as batches:
            for batch, base_results in batches:
                trained_results = forward(trained.model, trained.way, batch, self.plan.config.max_batch_tokens)
                yield from _pairs(batch, base_results, trained_results, failed)
                advance(sum(trace.item.read_tokens for trace in batch))

    def _of_baseline(self, index: int, base_head: LmHead) -> tuple[pa.Table, Failed]:
        failed: Failed = []
        builder = TableBuilder.from_heads(base_head, None, self.classes, self.plan.config)

        def scored() -> Iterator[ScoredTrace]:
            with self.states.read(index, base_head.weight_VH.device) as batches:
                for batch, results in batches:
                    yield from _pairs(batch, results, [None] * len(batch), failed)

        return builder.build(scored()), failed


def _pairs(
    batch: Sequence[LoadedTrace],
    base_results: Sequence[Tensor | Failure],
    trained_results: Sequence[Tensor | Failure | None],
    failed: Failed,
) -> Iterator[ScoredTrace]:
    """The traces that all models got through; the others are added to `failed`."""
    for trace, base, trained in zip(batch, base_results, trained_results, strict=True):
        if isinstance(base, Failure) or isinstance(trained, Failure):
            reason = base.reason if isinstance(base, Failure) else trained.reason  # type: ignore[union-attr]
            item = trace.item
            failed.append({"trace_source": item.trace_source, "trace_id": item.trace_id, "reason": reason})
        else:
            yield trace, base, trained


def _none() -> tuple[pa.Table, Failed]:
    raise AssertionError("a probe of one model has no table of the baseline alone")


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
