"""The parts of a probe on a Ray cluster: Ray Data hands them to actors, each with both models and, where there is one,
a GPU. An actor that dies is started again and its part with it; parts are written whole, so nothing is there twice.

Every machine has to see the models and the traces under the same paths, and the place that the parts go to: a shared
file system, or a URL in `parts`. Each actor lays out the work for itself, which costs one reading of the traces, and
gets no more than the number of a part.
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
from .shard_worker import parts_of, prepare, run_parts


def run_on_ray(config: ProbeConfig, execution: ExecutionConfig, out: Path, todo: list[int], plan: Plan) -> None:
    """Make the parts `todo` with `execution.workers` actors, on the cluster of RAY_ADDRESS or on one of this machine.

    Raises ValueError where the models are to take turns, RuntimeError where an actor fails rather than dies.
    """
    if execution.residency == "one":
        raise ValueError("residency 'one' is for --engine local: an actor keeps both models")
    if not todo:
        return
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    workers = min(execution.workers, len(todo))
    gpus = int(ray.cluster_resources().get("GPU", 0) >= workers)
    done = ray.data.from_items([{"part": index} for index in todo], override_num_blocks=len(todo)).map_batches(
        _Worker,
        batch_size=1,
        fn_constructor_args=(config, execution, out.resolve(), os.getcwd(), torch.get_num_threads()),
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
        num_gpus=gpus,
    )
    with progress("probing", 2 * sum(map(plan.tokens, todo)), "tokens") as advance:
        for row in done.iter_rows():
            advance(2 * plan.tokens(int(row["part"])))
    parts_of(config, out).sweep()  # what an actor that died had half written


class _Worker:
    def __init__(self, config: ProbeConfig, execution: ExecutionConfig, out: Path, where: str, threads: int) -> None:
        os.chdir(where)  # paths may be relative
        torch.set_num_threads(threads)  # Ray allows one, and the bits of a product may depend on it
        self.prober = prepare(config, execution.model_copy(update={"residency": "both"}), out)
        self.parts = parts_of(config, out)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        run_parts(self.prober, self.parts, batch["part"].tolist(), lambda tokens: None)
        return batch
