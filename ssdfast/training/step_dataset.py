"""Which traces each optimizer step trains on, and in which micro-batches.

A step's traces are drawn first and then packed into micro-batches. So a step has `batch_size` traces whatever their
lengths are, and neither packing nor the number of devices changes which traces meet in a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ..config import TrainConfig
from .collate import collate_packed, collate_padded
from .examples import Example
from .packing import distribute, first_fit_decreasing, padded_bins


class StepDataset(Dataset):
    """Item i is the work of rank ``i % ranks`` in step ``i // ranks``, over all epochs: ``{"micro_batches": [...],
    "tokens": completion tokens of the whole step}``, each micro-batch as `collate.py` makes it.

    pack: several traces per row; otherwise they are padded. The last step of an epoch has the remaining traces. Each
    epoch has an order of its own, drawn from the seed.
    """

    def __init__(self, examples: Sequence[Example], config: TrainConfig, seed: int, ranks: int, pack: bool) -> None:
        self.examples, self.budget, self.ranks = examples, config.micro_batch_tokens, ranks
        self.make_bins, self.collate = (first_fit_decreasing, collate_packed) if pack else (padded_bins, collate_padded)
        self.steps: list[np.ndarray] = []
        for epoch in range(config.num_train_epochs):
            order = np.random.default_rng((seed, epoch)).permutation(len(examples))
            self.steps += [order[i : i + config.batch_size] for i in range(0, len(order), config.batch_size)]

    def __len__(self) -> int:
        return len(self.steps) * self.ranks

    def __getitem__(self, i: int) -> dict[str, Any]:
        step, rank = divmod(i, self.ranks)
        examples = [self.examples[index] for index in self.steps[step]]
        lengths = [len(example) - 1 for example in examples]  # the last token of a trace is no input
        bins = distribute(self.make_bins(lengths, self.budget), lengths, self.ranks)[rank]
        shortest = min(examples, key=len)
        return {
            "micro_batches": [
                self.collate([examples[index] for index in indices]) if indices else _dummy(shortest)
                for indices in bins
            ],
            "tokens": sum(len(example.trace.completion_ids) for example in examples),
        }


def _dummy(example: Example) -> dict[str, Any]:
    """A micro-batch of weight 0, for a rank without traces in a step: the other ranks wait for its gradients."""
    return collate_padded([example]) | {"dummy": True}
