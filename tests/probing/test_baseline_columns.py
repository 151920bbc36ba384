"""The baseline's columns in a directory of their own, and probes of trained models beside it."""

import multiprocessing
import os
import signal
import time

import pyarrow as pa
import pytest

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


def test_what_does_not_fit_is_refused(work, tmp_path):
    config = work[0]["a"]
    probe_baseline(config, tmp_path / "x", ExecutionConfig())
    other = config.model_copy(update={"top_logprobs": 40})
    with pytest.raises(ValueError, match=r"holds a run with other settings \(top_logprobs: 20 there, 40 here"):
        probe_baseline(other, tmp_path / "x", ExecutionConfig())
    with pytest.raises(ValueError, match="other settings, other traces or another version"):
        probe(other, tmp_path / "a", baseline=tmp_path / "x")
    with pytest.raises(ValueError, match=r"does not lie beside .*/deeper/a"):
        probe(config, tmp_path / "deeper" / "a", baseline=tmp_path / "x")
    with lock(tmp_path / "x"), pytest.raises(InUse):
        probe_baseline(config, tmp_path / "x", ExecutionConfig())
