"""Two models, and memory for both or for one.

What a pair column needs from the first model's pass is its logits over the whole vocabulary at the scored position:
KL, total variation and the rest go over every token. Kept as logits that would be V numbers a position (600 kB in
float32 at V = 151,936), but they are a linear map of the last hidden state, H numbers (5 kB in bf16 at H = 2,560). So
the hidden states are what is kept, and the first model's lm_head stays in memory when the rest of it goes. Nothing is
lost on the way: the statistics get the same operands, and both modes write the same bytes.

===========  =======================================  ========================================================
mode         memory                                   time
===========  =======================================  ========================================================
both         both models, one part's table            each trace passes both models
one          the larger model, the other's lm_head,   the same, and for every `spill_gb` of hidden states each
             one part's hidden states and table       model is loaded once and the states are written and read
===========  =======================================  ========================================================

On disk, mode `one` takes positions x H x bytes of the dtype, at most `spill_gb`.
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
from ..chunked_forward import Way, prepare
from ..config import ExecutionConfig, ProbeConfig
from ..models import LanguageModel, Outline
from ..run_dir import atomic
from .plan import Plan, Scored
from .position_stats import Failure, Measure, forward
from .token_classes import TokenClasses

# Beside the weights: the kernels' workspace, a chunk's activations, a part's hidden states and table.
_ROOM = 2 << 30

Finished = tuple[int, pa.Table, list[dict[str, str]]]  # index of the part, its rows, the traces that failed


@dataclass(frozen=True)
class Loaded:
    model: LanguageModel
    way: Way


def load(outline: Outline, dtype: str) -> Loaded:
    """Raises ValueError as `models.load`, and for a model with other rows than its settings say."""
    model = models.load(outline.path, dtype)
    if model.vocabulary != outline.vocabulary:
        raise ValueError(
            f"{outline.path}: config.json says vocab_size {outline.vocabulary}, lm_head has {model.vocabulary} rows"
        )
    return Loaded(model, prepare(model))


def both_fit(a: Outline, b: Outline, dtype: str) -> bool:
    """Whether the weights of both models and what the work takes beside them fit into free memory."""
    if not (a.parameters and b.parameters):
        return True
    return (a.parameters + b.parameters) * getattr(torch, dtype).itemsize + _ROOM <= memory_usage.free_bytes()


@dataclass
class Prober:
    """Measures parts of a plan; `spill` is a directory for mode `one`."""

    plan: Plan
    a: Outline
    b: Outline
    classes: TokenClasses
    execution: ExecutionConfig
    spill: Path
    _pair: tuple[Loaded, Loaded] | None = None

    def parts(self, indices: Sequence[int], advance: Callable[[int], object]) -> Iterator[Finished]:
        """The tables of some parts, in their order. `advance` is told tokens as they have been through a model.

        A part is done when the next one is asked for; only then its hidden states go from the disk.
        """
        yield from (self._together if self.both else self._in_turn)(indices, advance)

    @property
    def both(self) -> bool:
        """Whether both models are in memory together."""
        asked = self.execution.residency
        return asked == "both" or (asked == "auto" and both_fit(self.a, self.b, self.config.dtype))

    @property
    def config(self) -> ProbeConfig:
        return self.plan.config

    def _together(self, indices: Sequence[int], advance: Callable[[int], object]) -> Iterator[Finished]:
        a, b = self._pair = self._pair or (load(self.a, self.config.dtype), load(self.b, self.config.dtype))
        measure = Measure.of(a.model.head, b.model.head, self.classes, self.config)
        for index in indices:
            failed: list[dict[str, str]] = []
            table = measure.table(self._both(index, a, b, failed, advance))
            yield index, table, failed

    def _both(
        self, index: int, a: Loaded, b: Loaded, failed: list[dict[str, str]], advance: Callable[[int], object]
    ) -> Iterator[tuple[Scored, Tensor, Tensor]]:
        for batch in self._batches(index):
            found_a = forward(a.model, a.way, batch, self.config.batch_tokens)
            found_b = forward(b.model, b.way, batch, self.config.batch_tokens)
            yield from _pairs(batch, found_a, found_b, failed)
            advance(2 * sum(one.item.reach for one in batch))

    def _batches(self, index: int) -> Iterator[list[Scored]]:
        return ([self.plan.trace(item) for item in batch] for batch in self.plan.parts[index])

    def _in_turn(self, indices: Sequence[int], advance: Callable[[int], object]) -> Iterator[Finished]:
        for group in self._groups(indices):
            a = load(self.a, self.config.dtype)
            for index in group:
                self._spill(index, a, advance)
            head_a = a.model.head
            del a
            _release()
            b = load(self.b, self.config.dtype)
            measure = Measure.of(head_a, b.model.head, self.classes, self.config)
            for index in group:
                failed: list[dict[str, str]] = []
                table = measure.table(self._spilled(index, b, failed, advance))
                yield index, table, failed
                self._file(index).unlink()
            del b, measure, head_a
            _release()

    def _groups(self, indices: Sequence[int]) -> Iterator[list[int]]:
        """As many parts as fit on the disk together, at least one."""
        a_position = self.a.config.hidden_size * getattr(torch, self.config.dtype).itemsize
        group: list[int] = []
        size = 0
        for index in indices:
            more = a_position * self.plan.positions(index)
            if group and size + more > self.execution.spill_gb * 1e9:
                yield group
                group, size = [], 0
            group.append(index)
            size += more
        if group:
            yield group

    def _spill(self, index: int, a: Loaded, advance: Callable[[int], object]) -> None:
        """Hidden states of a part under a, one tensor a trace; what an earlier run left whole is used again."""
        fingerprint = self.plan.fingerprint(index)
        if _fingerprint_of(self._file(index)) == fingerprint:
            advance(self.plan.tokens(index))
            return
        tensors: dict[str, Tensor] = {}
        failed: dict[str, str] = {}
        place = 0
        for batch in self._batches(index):
            for found in forward(a.model, a.way, batch, self.config.batch_tokens):
                if isinstance(found, Failure):
                    failed[str(place)] = found.reason
                else:
                    tensors[str(place)] = found.contiguous()
                place += 1
            advance(sum(one.item.reach for one in batch))
        with atomic(self._file(index)) as temporary:
            try:
                save_file(tensors, temporary, {"fingerprint": fingerprint, "failed": json.dumps(failed)})
            except SafetensorError as error:  # which hides what the system said
                raise OSError(errno.ENOSPC if "os error 28" in str(error) else errno.EIO, str(error)) from error

    def _spilled(
        self, index: int, b: Loaded, failed: list[dict[str, str]], advance: Callable[[int], object]
    ) -> Iterator[tuple[Scored, Tensor, Tensor]]:
        with safetensors.safe_open(self._file(index), "pt", device=str(b.model.device)) as spilled:
            reasons = json.loads(spilled.metadata()["failed"])
            place = 0
            for batch in self._batches(index):
                found_a: list[Tensor | Failure] = []
                for _ in batch:
                    name = str(place)
                    # Copied, since a product may round otherwise where its operand lies askew in memory, as in a file.
                    failure = Failure(reasons[name]) if name in reasons else None
                    found_a.append(failure or spilled.get_tensor(name).clone())
                    place += 1
                found_b = forward(b.model, b.way, batch, self.config.batch_tokens)
                yield from _pairs(batch, found_a, found_b, failed)
                advance(sum(one.item.reach for one in batch))

    def _file(self, index: int) -> Path:
        return self.spill / f"part-{index:05d}.safetensors"


def _pairs(
    batch: Sequence[Scored],
    found_a: Sequence[Tensor | Failure],
    found_b: Sequence[Tensor | Failure],
    failed: list[dict[str, str]],
) -> Iterator[tuple[Scored, Tensor, Tensor]]:
    """The traces that both models got through; the others are added to `failed`."""
    for one, a, b in zip(batch, found_a, found_b, strict=True):
        if isinstance(a, Failure) or isinstance(b, Failure):
            reason = a.reason if isinstance(a, Failure) else b.reason  # type: ignore[union-attr]
            failed.append({"label": one.item.label, "trace_id": one.item.trace_id, "reason": reason})
        else:
            yield one, a, b


def _fingerprint_of(file: Path) -> str | None:
    if not file.exists():
        return None
    with safetensors.safe_open(file, "pt") as spilled:
        return spilled.metadata()["fingerprint"]


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
