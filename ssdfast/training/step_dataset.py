"""Which traces each step learns from, and in which forward passes.

A step's traces are drawn first and laid into passes then, so that a step has `batch_size` traces whatever their
lengths are, and which traces meet in a step does not depend on packing or on the number of devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ..config import TrainConfig
from .collate import packed, padded
from .examples import Example
from .packing import first_fit_decreasing, padded_bins, shared


class Steps(Dataset):
    """Item i is what rank ``i % ranks`` does in step ``i // ranks``, of all epochs: ``{"passes": [...], "tokens":
    completion tokens of the whole step}``, each pass as `batches.py` makes it.

    pack: several traces in a row; otherwise they are padded. An epoch's last step has what traces are left. Each epoch
    has an order of its own, drawn from the seed.
    """

    def __init__(self, examples: Sequence[Example], config: TrainConfig, seed: int, ranks: int, pack: bool) -> None:
        self.examples, self.budget, self.ranks = examples, config.micro_batch_tokens, ranks
        self.bins, self.collate = (first_fit_decreasing, packed) if pack else (padded_bins, padded)
        self.steps: list[np.ndarray] = []
        for epoch in range(config.num_train_epochs):
            order = np.random.default_rng((seed, epoch)).permutation(len(examples))
            self.steps += [order[i : i + config.batch_size] for i in range(0, len(order), config.batch_size)]

    def __len__(self) -> int:
        return len(self.steps) * self.ranks

    def __getitem__(self, i: int) -> dict[str, Any]:
        step, rank = divmod(i, self.ranks)
        examples = [self.examples[place] for place in self.steps[step]]
        lengths = [len(example) - 1 for example in examples]  # the last token of a trace is no input
        mine = shared(self.bins(lengths, self.budget), lengths, self.ranks)[rank]
        shortest = min(examples, key=len)
        return {
            "passes": [self.collate([examples[place] for place in one]) if one else _idle(shortest) for one in mine],
            "tokens": sum(len(example.trace.completion_ids) for example in examples),
        }


def _idle(example: Example) -> dict[str, Any]:
    """A pass for a device that has no trace while others do, which wait for its gradients: it counts for nothing."""
    return padded([example]) | {"counts": False}
