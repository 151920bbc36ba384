"""The shards of a probe on a Ray cluster: Ray Data hands them to actors, each with both models and one GPU if there are
any. An actor that dies is restarted together with its shard; a shard is written whole, so no row is written twice.

Every machine must see the models and the traces under the same paths, and the directory of the table: a shared file
system, or a URL in `table_dir`. Each actor plans the work for itself, which costs one reading of the traces, and
receives only the index of a shard.

Several trained models follow one another, each with actors of its own. The first writes the baseline's hidden states to
the run's directory; where that is on a file system that all machines share, the others read them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from ..config import ExecutionConfig
from ..progress import progress
from .model_loading import Prober
from .shard_worker import prepare, run_shards
from .targets import Target


def run_on_ray(prober: Prober, out: Path, todo: Mapping[str, list[int]]) -> None:
    """Make the shards `todo` of each target with `execution.num_workers` actors, on the cluster of RAY_ADDRESS or on
    one of this machine.

    Raises ValueError for `model_loading: sequential`, RuntimeError where an actor fails rather than dies.
    """
    if prober.execution.model_loading == "sequential":
        raise ValueError("--model-loading sequential needs --engine local: a Ray actor holds both models")
    every = sorted({index for indices in todo.values() for index in indices})
    if not every:
        return
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    passes = [index for indices in todo.values() for index in indices]
    with progress("probing", 2 * sum(map(prober.plan.tokens, passes)), "tokens") as advance:
        for group in prober.states.groups(every):
            for target in prober.targets:
                if indices := [index for index in todo[target.name] if index in group]:
                    for index in _finished(prober, target, out, indices):
                        advance(2 * prober.plan.tokens(index))
            for index in group:
                prober.states.release(index, failed=False)
    for target in prober.targets:  # the temporary files of actors that died
        target.table.sweep()
        if target.baseline:
            target.baseline.sweep()


def _finished(prober: Prober, target: Target, out: Path, indices: list[int]) -> Iterator[int]:
    """Makes these shards of one target, and yields the index of each."""
    workers = min(prober.execution.num_workers, len(indices))
    targets = [replace(every) for every in prober.targets]  # without what they have read of the models
    arguments = (targets, target.name, prober.execution, out.resolve(), os.getcwd(), torch.get_num_threads())
    gpus = int(ray.cluster_resources().get("GPU", 0) >= workers)
    done = ray.data.from_items([{"shard": index} for index in indices], override_num_blocks=len(indices)).map_batches(
        _Worker,
        batch_size=1,
        fn_constructor_args=arguments,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
        num_gpus=gpus,
    )
    for row in done.iter_rows():
        yield int(row["shard"])


class _Worker:
    def __init__(
        self, targets: list[Target], name: str, execution: ExecutionConfig, out: Path, directory: str, threads: int
    ) -> None:
        os.chdir(directory)  # paths may be relative
        torch.set_num_threads(threads)  # Ray allows one, and the bits of a product may depend on it
        prober = prepare(targets, execution.model_copy(update={"model_loading": "both"}), out)
        self.name = name
        self.prober = replace(prober, targets=[target for target in targets if target.name == name])

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        run_shards(self.prober, {self.name: batch["shard"].tolist()}, lambda tokens: None)
        return batch
