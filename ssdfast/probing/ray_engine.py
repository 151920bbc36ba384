"""The shards of a probe on a Ray cluster: Ray Data hands them to actors, each with both models and one GPU if there are
any. An actor that dies is restarted together with its shard; a shard is written whole, so no row is written twice.

Every machine must see the models and the traces under the same paths, and the directory of the table: a shared file
system, or a URL in `table_dir`. Each actor plans the work for itself, which costs one reading of the traces, and
receives only the index of a shard.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from ..config import ExecutionConfig, ProbeConfig
from ..progress import progress
from .plan import Plan
from .shard_worker import position_table, prepare, run_shards


def run_on_ray(config: ProbeConfig, execution: ExecutionConfig, out: Path, todo: list[int], plan: Plan) -> None:
    """Make the shards `todo` with `execution.num_workers` actors, on the cluster of RAY_ADDRESS or on one of this
    machine.

    Raises ValueError for `model_loading: sequential`, RuntimeError where an actor fails rather than dies.
    """
    if execution.model_loading == "sequential":
        raise ValueError("--model-loading sequential needs --engine local: a Ray actor holds both models")
    if not todo:
        return
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    workers = min(execution.num_workers, len(todo))
    gpus = int(ray.cluster_resources().get("GPU", 0) >= workers)
    done = ray.data.from_items([{"shard": index} for index in todo], override_num_blocks=len(todo)).map_batches(
        _Worker,
        batch_size=1,
        fn_constructor_args=(config, execution, out.resolve(), os.getcwd(), torch.get_num_threads()),
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
        num_gpus=gpus,
    )
    with progress("probing", 2 * sum(map(plan.tokens, todo)), "tokens") as advance:
        for row in done.iter_rows():
            advance(2 * plan.tokens(int(row["shard"])))
    position_table(config, out).sweep()  # the temporary files of actors that died


class _Worker:
    def __init__(
        self, config: ProbeConfig, execution: ExecutionConfig, out: Path, directory: str, threads: int
    ) -> None:
        os.chdir(directory)  # paths may be relative
        torch.set_num_threads(threads)  # Ray allows one, and the bits of a product may depend on it
        self.prober = prepare(config, execution.model_copy(update={"model_loading": "both"}), out)
        self.table = position_table(config, out)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        run_shards(self.prober, self.table, batch["shard"].tolist(), lambda tokens: None)
        return batch
