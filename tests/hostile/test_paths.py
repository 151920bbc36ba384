"""A local path is a path: neither a pattern nor a URL. Nothing of another run is read, written to or removed."""

import importlib.util
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssdfast import run_dir, traces
from ssdfast.config import NamedPath, ProbeConfig, ProblemsConfig
from ssdfast.probing.runner import probe
from ssdfast.problems import huggingface
from ssdfast.report import write_report
from ssdfast.sampling.trace_store import TraceStore
from ssdfast.sharded_table import ForeignShard, ShardedTable, ShardMetadata

from .. import tiny

TABLE = pa.table({"position": pa.array(range(10), pa.int32())})
METADATA = ShardMetadata("abc")
# A path, and a directory that the path matches as a pattern or names as a URL.
NAMES = {
    "lr[1]": "lr1",
    "lr*": "lr-other",
    "lr?": "lr2",
    "[!a]": "b",
    "run::1": "1",
    "run:1": "1",
    "lr=1": "1",
    "file:x": "x",
    "~x": "x",
    "a b#c%20d": "a b#c d",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("name", "other"), NAMES.items())
def test_a_table_is_where_its_path_says(here, name, other):
    (here / other).mkdir()
    table, bystander = ShardedTable(name), ShardedTable(str(here / other))
    bystander.write(0, TABLE, METADATA)
    assert table.files() == []
    table.write(1, TABLE, METADATA)
    assert os.listdir(here / name) == ["shard-00001.parquet"]
    assert table.read(table.files()[0], ["position"], [("position", "<", 3)]).num_rows == 3
    table.clear()
    assert (table.files(), len(bystander.files())) == ([], 1)


@pytest.mark.parametrize("name", NAMES)
def test_traces_are_written_and_read_at_a_relative_path(here, name):
    tiny.save_traces(Path(name), 3)
    assert len(list(traces.read(Path(name)))) == 3
    assert len(list(traces.read(Path(name) / "shard-00000.parquet"))) == 3
    keys = [(f"problem{i}", 0) for i in range(3)]
    assert TraceStore(Path(name), keys).todo == []


def probe_config(directory, **values):
    baseline, trained = tiny.save_pair(directory / "models")
    path = tiny.save_traces(directory / "given", 3)
    return ProbeConfig(baseline=baseline, trained=trained, traces=(NamedPath(name="given", path=path),), **values)


def test_a_report_shows_its_own_run(here):
    config = probe_config(here)
    bystander = ShardedTable(str(here / "lr1" / "positions"))
    bystander.write(0, TABLE, METADATA)
    for name in ("lr[1]", "run::1"):
        probe(config, Path(name))
        assert (here / name / "positions" / "shard-00000.parquet").exists()
        assert write_report(Path(name)).exists()
    assert not (here / "1").exists()


def test_overwriting_clears_the_named_table_alone(here):
    bystander = ShardedTable(str(here / "parts1"))
    bystander.write(0, TABLE, METADATA)
    probe(probe_config(here, table_dir=str(here / "parts[1]")), here / "out", overwrite=True)
    assert len(bystander.files()) == 1
    assert len(ShardedTable(str(here / "parts[1]")).files()) == 1


@pytest.mark.parametrize("overwrite", [False, True])
def test_traces_are_no_shards_of_a_probe_and_stay(here, overwrite):
    config = probe_config(here, table_dir=str(here / "given"))
    with pytest.raises(
        ValueError, match=r"given/shard-00000.parquet is not a whole shard of a probe but another table"
    ):
        probe(config, here / "out", overwrite=overwrite)
    assert len(list(traces.read(here / "given"))) == 3


def test_nothing_is_cleared_where_a_shard_is_foreign(here):
    table = ShardedTable(str(here))
    table.write(0, TABLE, METADATA)
    pq.write_table(TABLE, here / "shard-00001.parquet")
    with pytest.raises(ForeignShard, match=r"shard-00001.parquet"):
        table.clear()
    assert len(table.files()) == 2


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("s3://bucket/positions", r"s3://bucket/positions needs a package that is not installed: .*s3fs"),
        ("gs://bucket/positions", r"gs://bucket/positions needs a package that is not installed: .*gcsfs"),
        ("simplecache::s3://bucket/positions", r"needs a package that is not installed: .*s3fs"),
        ("s4://bucket/positions", r"the scheme 's4' is unknown: name a directory, s3://"),
    ],
)
def test_a_url_that_cannot_be_used_is_one_sentence(here, url, sentence):
    for module in ("s3fs", "gcsfs"):
        if url.startswith(("s3", "gs", "simple")) and _installed(module):
            pytest.skip(f"{module} is installed")
    with pytest.raises(ValueError, match=sentence):
        probe(probe_config(here, table_dir=url), here / "out")
    assert not (here / "out" / "config.yaml").exists()


def _installed(module):
    return importlib.util.find_spec(module) is not None


def test_a_run_is_not_written_to_a_url(here):
    with (
        pytest.raises(ValueError, match="is a URL, and runs are written to local directories"),
        run_dir.lock(Path("s3://bucket/run")),
    ):
        pass
    assert not list(here.iterdir())


def test_a_dataset_in_a_directory_that_reads_as_a_pattern(here):
    pytest.importorskip("datasets")
    (here / "data1").mkdir()
    (here / "data[1]").mkdir()
    (here / "data1" / "train.jsonl").write_text('{"question": "1+1", "answer": "2"}\n')
    with pytest.raises(ValueError, match=r"in a path as a pattern: rename the directory"):
        huggingface.load(f"hf:{here}/data[1]@train", ProblemsConfig())


def test_hidden_files_of_the_user_are_kept(here):
    for name in (".draft.tmp", ".journal-notes", "shard-mine.parquet"):
        (here / name).write_text("mine")
    run_dir.sweep(here)
    ShardedTable(str(here)).clear()
    TraceStore(here / "traces", []).close()
    assert {file.name for file in here.iterdir()} >= {".draft.tmp", ".journal-notes", "shard-mine.parquet"}
