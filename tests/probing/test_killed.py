"""A probe that is killed, at any moment and in any mode, ends with the bytes of one that was not."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ssdfast.config import ExecutionConfig
from ssdfast.probing.runner import probe

from .runs import contents, kill_when, long_work, parts, start


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Settings, the directory that holds them, and what an undisturbed run makes."""
    directory = tmp_path_factory.mktemp("killed")
    config = long_work(directory)
    probe(config, directory / "whole")
    return config, directory, contents(directory / "whole")


@pytest.mark.parametrize("mode", ["both", "sequential"])
def test_killed_several_times_it_ends_with_the_same_bytes(work, tmp_path, mode):
    config, directory, whole = work
    rng = random.Random(mode)
    for _ in range(4):
        before = len(parts(tmp_path)) + len(list(tmp_path.glob("spill/*.safetensors")))
        wanted = before + rng.randint(1, 8)

        def there(wanted=wanted):
            return len(parts(tmp_path)) + len(list(tmp_path.glob("spill/*.safetensors"))) >= wanted

        kill_when(start(directory, tmp_path, f"model_loading={mode}"), there)
    assert len(parts(tmp_path)) < len(whole) - 2, "it was never killed half way"
    probe(config, tmp_path, ExecutionConfig(model_loading=mode))
    assert contents(tmp_path) == whole
    assert [f.name for f in (tmp_path / "positions").iterdir() if f.name.startswith(".")] == []
    assert list(tmp_path.glob("spill/*")) == []


def test_killed_in_turn_it_may_go_on_with_both_models(work, tmp_path):
    config, directory, whole = work
    kill_when(
        start(directory, tmp_path, "model_loading=sequential"), lambda: len(list(tmp_path.glob("spill/shard-*"))) >= 2
    )
    probe(config, tmp_path, ExecutionConfig(model_loading="both"))
    assert contents(tmp_path) == whole
    assert list((tmp_path / "spill").iterdir()) == []


def test_killed_while_a_part_is_being_written(work, tmp_path):
    config, directory, whole = work
    kill_when(
        start(directory, tmp_path, "model_loading=both"), lambda: any((tmp_path / "positions").glob(".shard-*.tmp"))
    )
    probe(config, tmp_path)
    assert contents(tmp_path) == whole


def test_killed_before_the_first_part_and_before_the_summary(work, tmp_path):
    config, directory, whole = work
    kill_when(start(directory, tmp_path, "model_loading=both"), (tmp_path / "config.yaml").exists)
    kill_when(start(directory, tmp_path, "model_loading=both"), lambda: len(parts(tmp_path)) == len(whole) - 2)
    probe(config, tmp_path)
    assert contents(tmp_path) == whole


def test_the_dead_run_does_not_hold_the_directory(work, tmp_path):
    config, directory, whole = work
    process = start(directory, tmp_path, "model_loading=both")
    while not parts(tmp_path):
        time.sleep(0.002)
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(ValueError, match=f"in use by process {process.pid} "):
        probe(config, tmp_path)
    process.kill()
    process.communicate()
    probe(config, tmp_path)
    assert contents(tmp_path) == whole


@pytest.mark.skipif(not Path("/dev/full").exists() or os.getuid() != 0, reason="mounting a small disk takes root")
@pytest.mark.parametrize("mode", ["both", "sequential"])
def test_a_full_disk_stops_it_with_a_sentence_and_room_lets_it_go_on(work, tmp_path, mode):
    config, _, whole = work
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount a disk here")
    try:
        filler = disk / "filler"
        filler.write_bytes(b"x" * 700_000)
        with pytest.raises(OSError, match=r"no room to write .*: free some space and start the same command again"):
            probe(config, disk / "out", ExecutionConfig(model_loading=mode, max_spill_gb=1e-5))
        stopped = len(parts(disk / "out"))
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        assert stopped < len(whole) - 2
        probe(config, disk / "out", ExecutionConfig(model_loading=mode))
        assert contents(disk / "out") == whole
    finally:
        subprocess.run(["umount", disk], check=True)
