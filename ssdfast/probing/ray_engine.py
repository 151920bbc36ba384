"""The shards of a probe on a Ray cluster: Ray Data hands them to actors, each with both models and one GPU if there are
any. An actor that dies is restarted together with its shard; a shard is written whole, so no row is written twice.

Every machine must see the models and the traces under the same paths, and the directory of the table: a shared file
system, or a URL in `table_dir`. Each actor plans the work for itself, which costs one reading of the traces, and
receives only the index of a shard.

Of several trained models an actor has one in memory at a time, beside the baseline. The first that makes a shard writes
the baseline's hidden states to the run's directory; where all machines share that, the others read them.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping
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
    work: list[dict[str, Any]] = [
        {"name": target.name, "shard": index}
        for group in prober.states.groups(every)
        for target in prober.targets
        for index in group
        if index in todo[target.name]
    ]
    if not work:
        return
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    workers = min(prober.execution.num_workers, len(work))
    gpus = int(ray.cluster_resources().get("GPU", 0) >= workers)
    targets = [replace(target) for target in prober.targets]  # without what this process has read of the models
    done = ray.data.from_items(work, override_num_blocks=len(work)).map_batches(
        _Worker,
        batch_size=1,
        fn_constructor_args=(
            targets,
            prober.execution,
            out.resolve(),
            prober.states.hashes,
            os.getcwd(),
            torch.get_num_threads(),
        ),
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
        num_gpus=gpus,
    )
    left = Counter(item["shard"] for item in work)
    with progress("probing", 2 * sum(prober.plan.tokens(item["shard"]) for item in work), "tokens") as advance:
        for row in done.iter_rows():
            index = int(row["shard"])
            advance(2 * prober.plan.tokens(index))
            left[index] -= 1
            if not left[index]:
                prober.states.release(index)
    for target in prober.targets:  # the temporary files of actors that died
        target.table.sweep()
        if target.baseline:
            target.baseline.sweep()


class _Worker:
    def __init__(
        self,
        targets: list[Target],
        execution: ExecutionConfig,
        out: Path,
        hashes: dict[str, str],
        directory: str,
        threads: int,
    ) -> None:
        os.chdir(directory)  # paths may be relative
        torch.set_num_threads(threads)  # Ray allows one, and the bits of a product may depend on it
        self.targets = {target.name: target for target in targets}
        self.prober = prepare(targets, execution.model_copy(update={"model_loading": "both"}), out)
        self.prober.states.hashes = hashes

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        name = str(batch["name"][0])
        self.prober.keep_only(self.targets[name])
        run_shards(self.prober, {name: batch["shard"].tolist()}, lambda tokens: None)
        return batch
