"""The baseline's hidden states at the scored positions, on disk between its forward pass and those of trained models.

A pair column needs the baseline's logits over the whole vocabulary at the scored position: KL, total variation and the
rest sum over every token. Stored logits would be V numbers per position (600 kB in float32 at V = 151,936). They are a
linear map of the last hidden state, H numbers (5 kB in bf16 at H = 2,560). So the hidden states are stored.

They take positions x H x bytes of the dtype. In the run's own `spill` directory they are there while the run needs
them. In `ExecutionConfig.baseline_states` they stay, named by a hash of all that they depend on, for probes that come
later.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import safetensors
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..config import ExecutionConfig
from ..messages import one_line
from ..models import ModelInfo
from ..run_dir import atomic
from .plan import LoadedTrace, Plan
from .position_stats import Failure, forward
from .reader import Reader

_log = logging.getLogger("ssdfast.probing")

_NONE_FAILED = json.dumps({})


@dataclass
class BaselineStates:
    """One file per shard of the plan. spill: the run's own directory for them."""

    plan: Plan
    baseline: ModelInfo
    execution: ExecutionConfig
    spill: Path
    hashes: dict[str, str] = field(default_factory=dict)
    """sha256 of the baseline's files, which states that stay are named by"""
    _names: dict[int, str] = field(default_factory=dict)

    @cached_property
    def stay(self) -> bool:
        """Whether they are kept for other probes."""
        if not self.execution.baseline_states:
            return False
        size = sum(map(self.num_bytes, range(len(self.plan.shards))))
        if fits := size <= self.execution.max_spill_gb * 1e9:
            Path(self.execution.baseline_states).mkdir(parents=True, exist_ok=True)
        else:
            _log.warning(
                f"the baseline's hidden states would take {size / 1e9:.1f} GB, more than max_spill_gb ="
                f" {self.execution.max_spill_gb:g}: they are not kept in {self.execution.baseline_states}"
            )
        return fits

    def groups(self, indices: Sequence[int]) -> Iterator[list[int]]:
        """As many shards as fit on the disk together, at least one."""
        group: list[int] = []
        size = 0
        for index in indices:
            shard_size = self.num_bytes(index)
            if group and size + shard_size > self.execution.max_spill_gb * 1e9:
                yield group
                group, size = [], 0
            group.append(index)
            size += shard_size
        if group:
            yield group

    def num_bytes(self, index: int) -> int:
        """Of a shard."""
        width: int = self.baseline.config.hidden_size * getattr(torch, self.plan.config.dtype).itemsize
        return width * self.plan.num_positions(index)

    def are_there(self, index: int) -> bool:
        """Whether an earlier pass of the same baseline wrote those of a shard whole, and failed on no trace."""
        metadata = _metadata(self._file(index))
        return metadata.get("fingerprint") == self._wanted(index) and metadata["failed"] == _NONE_FAILED

    def write(self, index: int, base: Reader, advance: Callable[[int], object]) -> None:
        """Compute and write those of a shard, one tensor per trace, unless they are there."""
        if self.are_there(index):
            advance(self.plan.tokens(index))
            return
        tensors: dict[str, Tensor] = {}
        failed: dict[str, str] = {}
        place = 0
        for batch in self.plan.batches(index):
            for result in forward(base.model, base.way, batch, self.plan.config.max_batch_tokens):
                if isinstance(result, Failure):
                    failed[str(place)] = result.reason
                else:
                    tensors[str(place)] = result.contiguous()
                place += 1
            advance(sum(trace.item.read_tokens for trace in batch))
        with atomic(self._file(index)) as temporary:
            try:
                save_file(tensors, temporary, {"fingerprint": self._wanted(index), "failed": json.dumps(failed)})
            except SafetensorError as error:  # which hides the system's error code
                raise OSError(errno.ENOSPC if "os error 28" in str(error) else errno.EIO, str(error)) from error

    @contextmanager
    def read(
        self, index: int, device: torch.device
    ) -> Iterator[Iterator[tuple[list[LoadedTrace], list[Tensor | Failure]]]]:
        """The batches of a shard, each with the states of its traces or why there are none."""
        with safetensors.safe_open(self._file(index), "pt", device=str(device)) as spilled:
            reasons = json.loads(spilled.metadata()["failed"])

            def batches() -> Iterator[tuple[list[LoadedTrace], list[Tensor | Failure]]]:
                place = 0
                for batch in self.plan.batches(index):
                    results: list[Tensor | Failure] = []
                    for _ in batch:
                        name = str(place)
                        # A copy, since a product may round differently where its operand is not aligned, as in a file.
                        failure = Failure(reasons[name]) if name in reasons else None
                        results.append(failure or spilled.get_tensor(name).clone())
                        place += 1
                    yield batch, results

            yield batches()

    def release(self, index: int) -> None:
        """Remove those of a shard unless they stay."""
        if not self.stay:
            self._file(index).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove those of all shards unless they stay."""
        for index in range(len(self.plan.shards)):
            self.release(index)

    def fingerprint(self, index: int) -> str:
        """Of the baseline's columns of a shard, and of hidden states that do not stay."""
        return self.plan.baseline_fingerprint(index, self.hashes)

    def _wanted(self, index: int) -> str:
        return self._hash(index) if self.stay else self.fingerprint(index)

    def _file(self, index: int) -> Path:
        if self.stay:
            return Path(self.execution.baseline_states) / f"{self._hash(index)}.safetensors"
        return self.spill / f"shard-{index:05d}.safetensors"

    def _hash(self, index: int) -> str:
        """Of all that the states of a shard depend on: the baseline's files, the ids, and how they are read."""
        if index in self._names:
            return self._names[index]
        config = self.plan.config
        settings = (sorted(self.hashes.items()), config.dtype, config.max_batch_tokens)
        digest = hashlib.sha256(repr((*settings, torch.__version__, transformers.__version__)).encode())
        for batch in self.plan.batches(index):
            for trace in batch:
                digest.update(repr((len(trace.read_ids), len(trace.rows))).encode())
                digest.update(trace.read_ids.tobytes() + trace.rows.tobytes())
            digest.update(b"end of batch")
        self._names[index] = digest.hexdigest()[:32]
        return self._names[index]


def _metadata(file: Path) -> dict[str, str]:
    """Of a file of hidden states; empty where there is none, or one that is damaged."""
    if not file.exists():
        return {}
    try:
        with safetensors.safe_open(file, "pt") as spilled:
            return dict(spilled.metadata())
    except SafetensorError as error:
        _log.warning(f"{file} is damaged ({one_line(error, 120)}): it is made again")
        return {}
