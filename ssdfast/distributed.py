"""Processes that torchrun started together: each does its part of the work, the first does what is done once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

# A rank may wait for the slowest rank's last shard; torchrun deals with a rank that dies.
_TIMEOUT = timedelta(days=7)

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def from_first(self, make: Callable[[], T]) -> T:
        """The result of `make` on the first rank, returned on every rank; the others wait for it."""
        if self.size == 1:
            return make()
        results: list[T | None] = [make() if self.first else None]
        dist.broadcast_object_list(results, 0)
        return results[0]  # type: ignore[return-value]

    def wait(self) -> None:
        """Wait until all ranks are here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def process_group() -> Iterator[Ranks]:
    """The ranks of this run: one, unless torchrun set WORLD_SIZE. Each gets the GPU of its LOCAL_RANK."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    dist.init_process_group("gloo", timeout=_TIMEOUT)
    try:
        yield Ranks(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()


def is_first() -> bool:
    """True in the one process that reports, also before and after `process_group`."""
    return os.environ.get("RANK", "0") == "0"
