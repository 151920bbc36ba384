"""Two models, with memory for both or for one at a time.

A pair column needs the baseline's logits over the whole vocabulary at the scored position: KL, total variation and the
rest sum over every token. Stored logits would be V numbers per position (600 kB in float32 at V = 151,936). They are a
linear map of the last hidden state, H numbers (5 kB in bf16 at H = 2,560). So the hidden states are stored, and the
baseline's lm_head stays in memory when the rest of the model is freed. The statistics get the same operands, so both
modes write the same bytes.

===========  ==========================================  ==============================================================
mode         memory                                      time
===========  ==========================================  ==============================================================
both         both models, one shard's table              each trace passes both models
sequential   the larger model, the baseline's lm_head,   the same; per `max_spill_gb` of hidden states each model is
             one shard's hidden states and table         loaded once, and the states are written and read
===========  ==========================================  ==============================================================

On disk, mode `sequential` takes positions x H x bytes of the dtype, at most `max_spill_gb`.
"""

from __future__ import annotations

import errno
import gc
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import safetensors
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from .. import memory_usage, models
from ..chunked_forward import ChunkStrategy, prepare
from ..config import ExecutionConfig, ProbeConfig
from ..models import LanguageModel, ModelInfo
from ..run_dir import atomic
from .plan import LoadedTrace, Plan
from .position_stats import Failure, ScoredTrace, TableBuilder, forward
from .token_classes import TokenClasses

# Beside the weights: the kernels' workspace, a chunk's activations, a shard's hidden states and table.
_WORKSPACE_BYTES = 2 << 30

Failed = list[dict[str, str]]  # trace_source, trace_id and reason of the traces that failed
FinishedShard = tuple[int, pa.Table, Failed]  # its index and its rows


@dataclass(frozen=True)
class LoadedModel:
    model: LanguageModel
    way: ChunkStrategy


def load(outline: ModelInfo, dtype: str) -> LoadedModel:
    """Raises ValueError as `models.load`, and for a model whose vocabulary differs from its config.json."""
    model = models.load(outline.path, dtype)
    if model.vocabulary != outline.vocabulary:
        raise ValueError(
            f"{outline.path}: config.json has vocab_size {outline.vocabulary}, lm_head has {model.vocabulary} rows:"
            " correct the one that is wrong"
        )
    return LoadedModel(model, prepare(model))


def both_fit(baseline: ModelInfo, trained: ModelInfo, dtype: str) -> bool:
    """Whether the weights of both models and the workspace fit into free memory."""
    if not (baseline.parameters and trained.parameters):
        return True
    weights = (baseline.parameters + trained.parameters) * getattr(torch, dtype).itemsize
    return weights + _WORKSPACE_BYTES <= memory_usage.free_bytes()


@dataclass
class Prober:
    """Makes shards of a plan. `spill` is a directory for the hidden states of mode `sequential`."""

    plan: Plan
    baseline: ModelInfo
    trained: ModelInfo
    classes: TokenClasses
    execution: ExecutionConfig
    spill: Path
    _pair: tuple[LoadedModel, LoadedModel] | None = None

    def shards(self, indices: Sequence[int], advance: Callable[[int], object]) -> Iterator[FinishedShard]:
        """The shards of these indices, in order. Calls `advance` with the number of tokens after each forward pass.

        A shard counts as written when the next one is requested; only then its hidden states are deleted.
        """
        yield from (self._with_both if self.loads_both else self._sequentially)(indices, advance)

    @property
    def loads_both(self) -> bool:
        """Whether both models are in memory together."""
        mode = self.execution.model_loading
        return mode == "both" or (mode == "auto" and both_fit(self.baseline, self.trained, self.config.dtype))

    @property
    def config(self) -> ProbeConfig:
        return self.plan.config

    def _with_both(self, indices: Sequence[int], advance: Callable[[int], object]) -> Iterator[FinishedShard]:
        dtype = self.config.dtype
        base, trained = self._pair = self._pair or (load(self.baseline, dtype), load(self.trained, dtype))
        builder = TableBuilder.from_heads(base.model.head, trained.model.head, self.classes, self.config)
        for index in indices:
            failed: Failed = []
            table = builder.build(self._run_both(index, base, trained, failed, advance))
            yield index, table, failed

    def _run_both(
        self, index: int, base: LoadedModel, trained: LoadedModel, failed: Failed, advance: Callable[[int], object]
    ) -> Iterator[ScoredTrace]:
        for batch in self._batches(index):
            base_results = forward(base.model, base.way, batch, self.config.max_batch_tokens)
            trained_results = forward(trained.model, trained.way, batch, self.config.max_batch_tokens)
            yield from _pairs(batch, base_results, trained_results, failed)
            advance(2 * sum(trace.item.read_tokens for trace in batch))

    def _batches(self, index: int) -> Iterator[list[LoadedTrace]]:
        return ([self.plan.load(item) for item in batch] for batch in self.plan.shards[index])

    def _sequentially(self, indices: Sequence[int], advance: Callable[[int], object]) -> Iterator[FinishedShard]:
        for group in self._groups(indices):
            base = load(self.baseline, self.config.dtype)
            for index in group:
                self._spill(index, base, advance)
            base_head = base.model.head
            del base
            _release()
            trained = load(self.trained, self.config.dtype)
            builder = TableBuilder.from_heads(base_head, trained.model.head, self.classes, self.config)
            for index in group:
                failed: Failed = []
                table = builder.build(self._run_trained(index, trained, failed, advance))
                yield index, table, failed
                self._file(index).unlink()
            del trained, builder, base_head
            _release()

    def _groups(self, indices: Sequence[int]) -> Iterator[list[int]]:
        """As many shards as fit on the disk together, at least one."""
        bytes_per_position = self.baseline.config.hidden_size * getattr(torch, self.config.dtype).itemsize
        group: list[int] = []
        size = 0
        for index in indices:
            shard_size = bytes_per_position * self.plan.num_positions(index)
            if group and size + shard_size > self.execution.max_spill_gb * 1e9:
                yield group
                group, size = [], 0
            group.append(index)
            size += shard_size
        if group:
            yield group

    def _spill(self, index: int, base: LoadedModel, advance: Callable[[int], object]) -> None:
        """Write the baseline's hidden states of a shard, one tensor per trace, unless an earlier run wrote them."""
        fingerprint = self.plan.fingerprint(index)
        if _fingerprint(self._file(index)) == fingerprint:
            advance(self.plan.tokens(index))
            return
        tensors: dict[str, Tensor] = {}
        failed: dict[str, str] = {}
        place = 0
        for batch in self._batches(index):
            for result in forward(base.model, base.way, batch, self.config.max_batch_tokens):
                if isinstance(result, Failure):
                    failed[str(place)] = result.reason
                else:
                    tensors[str(place)] = result.contiguous()
                place += 1
            advance(sum(trace.item.read_tokens for trace in batch))
        with atomic(self._file(index)) as temporary:
            try:
                save_file(tensors, temporary, {"fingerprint": fingerprint, "failed": json.dumps(failed)})
            except SafetensorError as error:  # which hides the system's error code
                raise OSError(errno.ENOSPC if "os error 28" in str(error) else errno.EIO, str(error)) from error

    def _run_trained(
        self, index: int, trained: LoadedModel, failed: Failed, advance: Callable[[int], object]
    ) -> Iterator[ScoredTrace]:
        with safetensors.safe_open(self._file(index), "pt", device=str(trained.model.device)) as spilled:
            reasons = json.loads(spilled.metadata()["failed"])
            place = 0
            for batch in self._batches(index):
                base_results: list[Tensor | Failure] = []
                for _ in batch:
                    name = str(place)
                    # A copy, since a product may round differently where its operand is not aligned, as in a file.
                    failure = Failure(reasons[name]) if name in reasons else None
                    base_results.append(failure or spilled.get_tensor(name).clone())
                    place += 1
                trained_results = forward(trained.model, trained.way, batch, self.config.max_batch_tokens)
                yield from _pairs(batch, base_results, trained_results, failed)
                advance(sum(trace.item.read_tokens for trace in batch))

    def remove_spill(self) -> None:
        """Remove the hidden states of the plan's shards."""
        for index in range(len(self.plan.shards)):
            self._file(index).unlink(missing_ok=True)

    def _file(self, index: int) -> Path:
        return self.spill / f"shard-{index:05d}.safetensors"


def _pairs(
    batch: Sequence[LoadedTrace],
    base_results: Sequence[Tensor | Failure],
    trained_results: Sequence[Tensor | Failure],
    failed: Failed,
) -> Iterator[ScoredTrace]:
    """The traces that both models got through; the others are added to `failed`."""
    for trace, base, trained in zip(batch, base_results, trained_results, strict=True):
        if isinstance(base, Failure) or isinstance(trained, Failure):
            reason = base.reason if isinstance(base, Failure) else trained.reason  # type: ignore[union-attr]
            item = trace.item
            failed.append({"trace_source": item.trace_source, "trace_id": item.trace_id, "reason": reason})
        else:
            yield trace, base, trained


def _fingerprint(file: Path) -> str | None:
    if not file.exists():
        return None
    with safetensors.safe_open(file, "pt") as spilled:
        return spilled.metadata()["fingerprint"]


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
