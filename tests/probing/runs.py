"""What a probe has made, and one of sixty traces in many shards, for the tests that disturb it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ssdfast.config import NamedPath, ProbeConfig, dump, load, read_yaml

from .. import tiny

ROOT = Path(__file__).resolve().parent.parent.parent

RUN = """
import sys
from pathlib import Path
from ssdfast import config
from ssdfast.probing.runner import probe
values = config.read_yaml(Path(sys.argv[1]))
settings = config.load(config.probe_class(values["trained"]), values, sys.argv[1])
execution = config.load(config.ExecutionConfig, dict(pair.split("=") for pair in sys.argv[3:]), "flags")
probe(settings, Path(sys.argv[2]), execution)
"""


def parts(out: Path) -> list[Path]:
    return sorted((out / "positions").glob("shard-*.parquet"))


def contents(out: Path) -> dict[str, bytes]:
    """Every byte that a run must make again after any disturbance."""
    return {file.name: file.read_bytes() for file in [*sorted((out / "positions").iterdir()), out / "summary.json"]}


def long_work(directory: Path) -> ProbeConfig:
    """Settings of some thirty shards, which also stand in `directory`/config.yaml, and the script that runs them."""
    baseline, trained = tiny.save_pair(directory)
    many = NamedPath(name="many", path=tiny.save_traces(directory / "many", 60, seed=5))
    config = ProbeConfig(
        baseline=baseline, trained=trained, traces=(many,), max_batch_tokens=40, positions_per_shard=10
    )
    file = directory / "config.yaml"
    file.write_text(dump(config))
    (directory / "run.py").write_text(RUN)
    return load(ProbeConfig, read_yaml(file), str(file))  # every setting counts as given, as in the script


def start(directory: Path, out: Path, *execution: str, launcher: tuple[str, ...] = (), **env: str) -> subprocess.Popen:
    """The work of `directory` in a process of its own. execution: settings as ``model_loading=sequential``."""
    return subprocess.Popen(
        [sys.executable, *launcher, str(directory / "run.py"), str(directory / "config.yaml"), str(out), *execution],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_when(process: subprocess.Popen, happened: Callable[[], bool]) -> None:
    while not happened() and process.poll() is None:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
