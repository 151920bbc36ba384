"""A Ray cluster, the ranks of torchrun and a single process make the same parts, also when a worker dies."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from ssdfast.config import ExecutionConfig
from ssdfast.probing.runner import probe

from .runs import RUN, contents, long_work, parts, start


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    directory = tmp_path_factory.mktemp("engines")
    config = long_work(directory)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each rank and worker: the order of the sums in a product depends on it
    probe(config, directory / "whole")
    torch.set_num_threads(threads)
    return config, directory, contents(directory / "whole")


def run(directory, out, engine, *launcher):
    execution = (f"engine={engine}", "num_workers=2")
    return start(directory, out, *execution, launcher=launcher, OMP_NUM_THREADS="1")


def test_the_local_engine_does_not_import_ray(work, tmp_path):
    _, directory, _ = work
    code = RUN + "\nassert 'ray' not in sys.modules, 'ray is there'"
    done = subprocess.run(
        [sys.executable, "-c", code, str(directory / "config.yaml"), str(tmp_path), "engine=local"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_the_parts(work, tmp_path, ranks):
    _, directory, whole = work
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    process = run(directory, tmp_path, "local", *torchrun)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert contents(tmp_path) == whole


def test_a_ray_worker_that_is_killed_costs_nothing_but_time(work, tmp_path):
    pytest.importorskip("ray")
    _, directory, whole = work
    process = run(directory, tmp_path, "ray")
    killed = None
    while killed is None and process.poll() is None:
        time.sleep(0.01)
        if not parts(tmp_path):
            continue
        for child in psutil.Process(process.pid).children(recursive=True):
            if "MapWorker" in " ".join(child.cmdline()):
                killed = child.pid
                os.kill(killed, signal.SIGKILL)
                break
    there = len(parts(tmp_path))
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert killed, "no worker was found"
    assert there < len(whole) - 2, "it was killed when all was done"
    assert contents(tmp_path) == whole


def test_models_in_turn_are_not_for_ray(work, tmp_path):
    pytest.importorskip("ray")
    config, _, _ = work
    with pytest.raises(ValueError, match="--model-loading sequential needs --engine local"):
        probe(config, tmp_path, ExecutionConfig(engine="ray", model_loading="sequential"))
