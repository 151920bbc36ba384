"""The baseline's columns in a directory of their own, and probes of trained models beside it."""

import multiprocessing
import os
import signal
import time

import pyarrow as pa
import pytest

import ssdfast as ssd
from ssdfast.config import ExecutionConfig, ProbeConfig
from ssdfast.probing.baseline_columns import probe_baseline
from ssdfast.probing.runner import probe
from ssdfast.run_dir import InUse, RunError, lock
from ssdfast.sharded_table import ShardedTable

from .. import tiny
from .test_many_models import MOVED, config_of, settings_of, table_of
from .test_runner import FAILING, fail_on


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The settings of each trained model's probe, and the directory of one probe of all of them."""
    directory = tmp_path_factory.mktemp("beside")
    settings, trained = settings_of(directory)
    probe(config_of((settings, trained)), directory / "out")
    return {name: ProbeConfig(**settings, trained=path) for name, path in trained.items()}, directory / "out"


def shards(directory):
    return {file.name: file.read_bytes() for file in sorted((directory / "positions").iterdir())}


@pytest.mark.parametrize("max_spill_gb", [32.0, 1e-5])
def test_they_have_the_bytes_of_one_probe_of_all(work, tmp_path, forwards, max_spill_gb):
    configs, together = work
    execution = ExecutionConfig(baseline_states=str(tmp_path / "states"), max_spill_gb=max_spill_gb)
    probe_baseline(configs["a"], tmp_path / "baseline", execution)
    assert set(forwards) == {configs["a"].baseline}
    traces = len(forwards)
    forwards.clear()
    for name, config in configs.items():
        probe(config, tmp_path / name, execution, baseline=tmp_path / "baseline")
    again = 0 if max_spill_gb == 32.0 else len(MOVED)
    assert forwards.count(configs["a"].baseline) == again * traces
    for name in ("baseline", *MOVED):
        assert shards(tmp_path / name) == shards(together / "models" / name), name
    for name in MOVED:
        assert table_of(tmp_path / name).equals(table_of(together / "models" / name)), name
        summary = "summary.json"
        assert (tmp_path / name / summary).read_bytes() == (together / "models" / name / summary).read_bytes()
    assert not [file for name in ("baseline", *MOVED) for file in (tmp_path / name).glob("spill/*")]
    forwards.clear()
    probe_baseline(configs["b"], tmp_path / "baseline", execution)
    assert forwards == []


def test_they_may_move_together(work, tmp_path):
    configs, together = work
    probe_baseline(configs["a"], tmp_path / "here" / "x", ExecutionConfig())
    probe(configs["a"], tmp_path / "here" / "a", baseline=tmp_path / "here" / "x")
    moved = (tmp_path / "here").rename(tmp_path / "there")
    assert table_of(moved / "a").equals(table_of(together / "models" / "a"))


def _probe_baseline(config, out):
    probe_baseline(config, out, ExecutionConfig())


def test_killed_several_times_it_ends_with_the_same_bytes(work, tmp_path):
    configs, together = work
    whole = shards(together / "models" / "baseline")
    for wanted in (2, 7, 12):
        run = multiprocessing.get_context("spawn").Process(target=_probe_baseline, args=(configs["a"], tmp_path / "x"))
        run.start()
        while run.is_alive() and len(list((tmp_path / "x" / "positions").glob("shard-*"))) < wanted:
            time.sleep(0.002)
        os.kill(run.pid, signal.SIGKILL)
        run.join()
        assert len(list((tmp_path / "x" / "positions").glob("shard-*"))) < len(whole)
    probe_baseline(configs["a"], tmp_path / "x", ExecutionConfig())
    assert shards(tmp_path / "x") == whole
    assert list((tmp_path / "x" / "spill").iterdir()) == []


def test_a_trace_that_the_baseline_fails_on_is_named_and_tried_again(work, tmp_path, monkeypatch):
    config = work[0]["a"]
    ids = [[4, 5, 6], [4, FAILING, 6], [7, 8]]
    traces = config.traces[0].model_copy(update={"path": tiny.save_traces(tmp_path / "t", 3, completion_ids=ids)})
    config = config.model_copy(update={"traces": (traces,)})
    with monkeypatch.context() as broken:
        fail_on(broken, config.baseline)
        with pytest.raises(RunError, match=r"problem1#0 could not be scored: .*baseline: RuntimeError"):
            probe_baseline(config, tmp_path / "x", ExecutionConfig())
    probe_baseline(config, tmp_path / "x", ExecutionConfig())
    table = pa.concat_tables(shard.read() for shard in ShardedTable(str(tmp_path / "x" / "positions")).shards())
    assert len(table) == 8


@pytest.mark.parametrize("change", ["gone", "truncated", "other weights", "other tokens"])
def test_a_probe_does_not_repair_what_others_read(tmp_path, change):
    settings, trained = settings_of(tmp_path)
    config = ProbeConfig(**settings, trained=trained["a"])
    probe_baseline(config, tmp_path / "x", ExecutionConfig())
    shard = tmp_path / "x" / "positions" / "shard-00002.parquet"
    if change == "gone":
        shard.unlink()
    elif change == "truncated":
        shard.write_bytes(shard.read_bytes()[:-9])
    elif change == "other weights":
        tiny.save_model(tmp_path / "baseline", moved=0.01)
    else:
        table = tiny.trace_table(40, seed=5)
        ids = [[(i + 1) % 90 for i in row] for row in table["completion_ids"].to_pylist()]
        tiny.save_traces(tmp_path / "many", 40, seed=5, completion_ids=ids)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "x").rglob("*")}
    with pytest.raises(ValueError, match=r"x/positions (lacks|has, .*,) shard \d of the baseline's columns: delete"):
        probe(config, tmp_path / "a", baseline=tmp_path / "x")
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "x").rglob("*")} == before


def test_a_trained_model_that_fails_leaves_the_states_to_the_others(work, tmp_path, monkeypatch, forwards):
    path = tiny.save_traces(tmp_path / "t", 3, completion_ids=[[4, 5, 6], [4, FAILING, 6], [7, 8]])
    traces = work[0]["a"].traces[0].model_copy(update={"path": path})
    configs = {name: config.model_copy(update={"traces": (traces,)}) for name, config in work[0].items()}
    kept = ExecutionConfig(baseline_states=str(tmp_path / "states"))
    probe_baseline(configs["a"], tmp_path / "x", kept)
    states = sorted((tmp_path / "states").iterdir())
    with monkeypatch.context() as broken:
        fail_on(broken, configs["a"].trained)
        assert probe(configs["a"], tmp_path / "a", kept, baseline=tmp_path / "x")
    assert sorted((tmp_path / "states").iterdir()) == states
    forwards.clear()
    assert probe(configs["a"], tmp_path / "a", kept, baseline=tmp_path / "x") == []
    probe(configs["b"], tmp_path / "b", kept, baseline=tmp_path / "x")
    assert configs["a"].baseline not in forwards


def test_what_does_not_fit_is_refused(work, tmp_path):
    config = work[0]["a"]
    probe_baseline(config, tmp_path / "x", ExecutionConfig())
    other = config.model_copy(update={"top_logprobs": 40})
    with pytest.raises(ValueError, match=r"holds a run with other settings \(top_logprobs: 20 there, 40 here"):
        probe_baseline(other, tmp_path / "x", ExecutionConfig())
    with pytest.raises(ValueError, match=r"x/positions has, of other traces or settings, shard 0 .*: delete .*/x, and"):
        probe(other, tmp_path / "a", baseline=tmp_path / "x")
    with pytest.raises(ValueError, match=r"x is not found by a reader of .*/deeper/a"):
        probe(config, tmp_path / "deeper" / "a", baseline=tmp_path / "x")
    with pytest.raises(ValueError, match="whose name has letters, digits"):
        probe(config, tmp_path / "a", baseline=tmp_path / "my x")
    with pytest.raises(ValueError, match=r"x has the baseline's columns of the probes beside it: load one of them"):
        ssd.load(tmp_path / "x")
    with lock(tmp_path / "x"), pytest.raises(InUse):
        probe_baseline(config, tmp_path / "x", ExecutionConfig())
