"""Tables with columns in files of their own are seen whole."""

from __future__ import annotations

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssdfast.config import ManyProbesConfig, NamedPath
from ssdfast.probing.runner import probe
from ssdfast.sharded_table import ShardedTable
from ssdfast.view.find_tables import find_tables
from ssdfast.view.queries import Explorer
from ssdfast.workflows.study import select_traces
from tests import tiny


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    directory = tmp_path_factory.mktemp("joined")
    trained = {name: tiny.save_model(directory / name, moved=moved) for name, moved in (("a", 0.02), ("b", 0.05))}
    source = NamedPath(name="own", path=tiny.save_traces(directory / "traces", 12, seed=4))
    config = ManyProbesConfig(
        baseline=tiny.save_model(directory / "baseline"), trained=trained, traces=(source,), positions_per_shard=40
    )
    probe(config, directory / "out")
    return directory / "out"


@pytest.fixture(params=["all", "one"])
def explored(request, out, monkeypatch):
    """The whole run, or the directory of one of its models."""
    monkeypatch.setattr("ssdfast.view.queries._INDEX_FROM", 10**9)
    root, name = (out, "positions of models/b") if request.param == "all" else (out / "models" / "b", "positions")
    explorer = Explorer(find_tables(root), root)
    yield explorer, name
    explorer.close()


@pytest.fixture(scope="module")
def table(out):
    shards = ShardedTable(str(out / "models" / "b" / "positions")).shards()
    return pa.concat_tables([shard.read() for shard in shards]).unify_dictionaries()


def test_rows_filters_and_figures_have_the_columns_of_both(explored, table):
    explorer, name = explored
    assert explorer.describe()[-1]["rows"] == len(table)
    rows = explorer.rows(name, [], "", 0)
    for column in ("trace_id", "position", "base_entropy", "kl_trained_base", "position_class"):
        assert [row[column] for row in rows] == table[column].to_pylist()[:60], column
    assert rows[0]["text"]
    highest = explorer.rows(name, [("position_class", "=", "mixed")], "-base_entropy", 0)
    mixed = table.filter(pa.compute.equal(table["position_class"].cast(pa.string()), "mixed"))
    assert highest[0]["base_entropy"] == max(mixed["base_entropy"].to_pylist())
    assert sum(explorer.histogram(name, "base_entropy", [])["counts"]) == len(table)
    trace = table["trace_id"][0].as_py()
    assert len(explorer.trace(name, trace)) == table["trace_id"].to_pylist().count(trace)


def test_a_row_and_an_export_are_whole(explored, table):
    explorer, name = explored
    row = explorer.rows(name, [], "", 0)[7]
    assert {key: explorer.row(name, row["_row"])[key] for key in table.column_names} == table.slice(7, 1).to_pylist()[0]
    exported = explorer.export(name, [], 10_000)
    for column in table.column_names:
        assert exported[column].to_pylist() == table[column].to_pylist(), column


def test_a_baseline_of_other_positions_is_named(out, tmp_path):
    shutil.copytree(out, tmp_path / "out")
    file = tmp_path / "out" / "models" / "baseline" / "positions" / "shard-00000.parquet"
    pq.write_table(pq.read_table(file).slice(3), file)
    explorer = Explorer(find_tables(tmp_path / "out"), tmp_path / "out")
    try:
        with pytest.raises(ValueError, match=r"baseline/positions has [\d,]+ of the [\d,]+ positions of .*probe again"):
            explorer.describe()
    finally:
        explorer.close()


def test_selected_traces_have_the_columns_of_the_traces_themselves(tmp_path, monkeypatch):
    whole = tiny.save_traces(tmp_path / "sample" / "traces", 5, finish_reason=["stop"] * 5)
    table = select_traces.index(tmp_path / "sample" / "traces").take([1, 3, 3])
    table = table.set_column(1, "sample", pa.array([0, 0, 1], pa.int32()))
    select_traces.write(table.set_column(5, "correct", pa.array([True, None, False])), tmp_path / "select" / "traces")
    explorer = Explorer(find_tables(tmp_path), tmp_path)
    name = "traces of select/traces"
    rows = explorer.rows(name, [], "", 0)
    assert [(row["sample"], row["correct"]) for row in rows] == [(0, True), (0, None), (1, False)]
    ids = pq.read_table(whole)["completion_ids"].take([1, 3, 3]).to_pylist()
    assert [explorer.row(name, row["_row"])["completion_ids"] for row in rows] == ids
    assert explorer.export(name, [], 10)["completion_ids"].to_pylist() == ids
    assert explorer.count(name, [("correct", "=", "true")]) == 1
    explorer.close()
    with pytest.raises(ValueError, match="holds no positions"):  # what it selects from is elsewhere
        find_tables(tmp_path / "select")
