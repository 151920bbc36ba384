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

On disk, mode `sequential` takes positions x H x bytes of the dtype, at most `max_spill_gb`. With `baseline_states` they
stay there, named by a hash of all that they depend on, and a probe of another trained model starts from them: for six
trained models the traces are read seven times and not twelve.
"""

from __future__ import annotations

import errno
import gc
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import safetensors
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from .. import memory_usage, models
from ..chunked_forward import ChunkStrategy, prepare
from ..config import ExecutionConfig, ProbeConfig
from ..messages import one_line
from ..models import LanguageModel, ModelInfo
from ..run_dir import atomic
from .plan import LoadedTrace, Plan
from .position_stats import Failure, ScoredTrace, TableBuilder, forward
from .token_classes import TokenClasses

_log = logging.getLogger("ssdfast.probing")

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
    baseline_hashes: dict[str, str] = field(default_factory=dict)
    """sha256 of the baseline's files, which kept hidden states are named by"""
    _pair: tuple[LoadedModel, LoadedModel] | None = None
    _names: dict[int, str] = field(default_factory=dict)

    def shards(self, indices: Sequence[int], advance: Callable[[int], object]) -> Iterator[FinishedShard]:
        """The shards of these indices, in order. Calls `advance` with the number of tokens after each forward pass.

        A shard counts as written when the next one is requested; only then its hidden states are deleted.
        """
        yield from (self._with_both if self.loads_both else self._sequentially)(indices, advance)

    @property
    def loads_both(self) -> bool:
        """Whether both models are in memory together."""
        mode = self.execution.model_loading
        if self._keeps_states:
            return False
        return mode == "both" or (mode == "auto" and both_fit(self.baseline, self.trained, self.config.dtype))

    @cached_property
    def _keeps_states(self) -> bool:
        if not self.execution.baseline_states:
            return False
        size = sum(map(self._bytes, range(len(self.plan.shards))))
        if fits := size <= self.execution.max_spill_gb * 1e9:
            Path(self.execution.baseline_states).mkdir(parents=True, exist_ok=True)
        else:
            _log.warning(
                f"the baseline's hidden states would take {size / 1e9:.1f} GB, more than max_spill_gb ="
                f" {self.execution.max_spill_gb:g}: they are not kept in {self.execution.baseline_states}"
            )
        return fits

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
                if failed or not self._keeps_states:  # a trace that failed is tried again
                    self._file(index).unlink()
            del trained, builder, base_head
            _release()

    def _groups(self, indices: Sequence[int]) -> Iterator[list[int]]:
        """As many shards as fit on the disk together, at least one."""
        group: list[int] = []
        size = 0
        for index in indices:
            shard_size = self._bytes(index)
            if group and size + shard_size > self.execution.max_spill_gb * 1e9:
                yield group
                group, size = [], 0
            group.append(index)
            size += shard_size
        if group:
            yield group

    def _bytes(self, index: int) -> int:
        """Of the hidden states of a shard."""
        width: int = self.baseline.config.hidden_size * getattr(torch, self.config.dtype).itemsize
        return width * self.plan.num_positions(index)

    def _spill(self, index: int, base: LoadedModel, advance: Callable[[int], object]) -> None:
        """Write the baseline's hidden states of a shard, one tensor per trace, unless an earlier run wrote them."""
        fingerprint = self._states_of(index) if self._keeps_states else self.plan.fingerprint(index)
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
        """Remove the hidden states of the plan's shards, unless they are kept for other probes."""
        for index in range(len(self.plan.shards)):
            if not self._keeps_states:
                self._file(index).unlink(missing_ok=True)

    def _file(self, index: int) -> Path:
        if self._keeps_states:
            return Path(self.execution.baseline_states) / f"{self._states_of(index)}.safetensors"
        return self.spill / f"shard-{index:05d}.safetensors"

    def _states_of(self, index: int) -> str:
        """A hash of all that the baseline's hidden states of a shard depend on: its files, the ids, and how they are
        read."""
        if index in self._names:
            return self._names[index]
        settings = (sorted(self.baseline_hashes.items()), self.config.dtype, self.config.max_batch_tokens)
        digest = hashlib.sha256(repr((*settings, torch.__version__, transformers.__version__)).encode())
        for batch in self._batches(index):
            for trace in batch:
                digest.update(repr((len(trace.read_ids), len(trace.rows))).encode())
                digest.update(trace.read_ids.tobytes() + trace.rows.tobytes())
            digest.update(b"end of batch")
        self._names[index] = digest.hexdigest()[:32]
        return self._names[index]


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
    """That a file of hidden states was written with; None where there is none, or one that is damaged."""
    if not file.exists():
        return None
    try:
        with safetensors.safe_open(file, "pt") as spilled:
            return spilled.metadata()["fingerprint"]
    except SafetensorError as error:
        _log.warning(f"{file} is damaged ({one_line(error, 120)}): it is made again")
        return None


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
