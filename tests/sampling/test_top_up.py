"""A run with more samples per problem keeps its traces: they move to the shards of the larger run, whatever stops it."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssdfast.sampling import trace_store as stores
from ssdfast.sampling.trace_store import TraceStore

from .test_trace_store import fill, keys, shards, trace

FEW = [(f"p{i}", sample) for i in range(10) for sample in range(2)]
MANY = [(f"p{i}", sample) for i in range(10) for sample in range(4)]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(stores, "TRACES_PER_SHARD", 6)


def fill_missing(store, upto=None):
    todo = store.todo
    for place in todo[:upto]:
        store.add(trace(place, keys=MANY))
    return todo


@pytest.fixture
def whole(tmp_path):
    store = TraceStore(tmp_path / "whole", MANY)
    fill_missing(store)
    store.close()
    return shards(tmp_path / "whole")


def begin(directory):
    store = TraceStore(directory, FEW)
    for key in FEW:
        store.add(trace(MANY.index(key), keys=MANY))
    store.close()


def test_the_missing_samples_alone_are_drawn(tmp_path, whole):
    begin(tmp_path / "run")
    store = TraceStore(tmp_path / "run", MANY)
    assert [MANY[place] for place in fill_missing(store)] == [key for key in MANY if key[1] >= 2]
    store.close()
    assert shards(tmp_path / "run") == whole
    assert not list((tmp_path / "run").glob(".*"))


@pytest.mark.parametrize("drawn", [0, 1, 7, 19])
def test_a_top_up_that_is_killed_loses_nothing(tmp_path, whole, drawn):
    begin(tmp_path / "run")
    fill_missing(TraceStore(tmp_path / "run", MANY), drawn)  # and no `close`
    store = TraceStore(tmp_path / "run", MANY)
    assert len(store.todo) == 20 - drawn
    fill_missing(store)
    store.close()
    assert shards(tmp_path / "run") == whole


def test_a_column_of_grades_moves_along(tmp_path):
    begin(tmp_path / "run")
    for path in (tmp_path / "run").glob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.append_column("correct", pa.array([True] * len(table))), path)
    store = TraceStore(tmp_path / "run", MANY)
    fill_missing(store)
    store.close()
    assert keys(tmp_path / "run") == MANY
    grades = [value for path in sorted((tmp_path / "run").glob("*.parquet"))
              for value in pq.read_table(path)["correct"].to_pylist()]  # fmt: skip
    assert grades == [True if sample < 2 else None for _, sample in MANY]


def test_truncated_traces_are_drawn_again_with_more_tokens(tmp_path):
    limits = [3] * len(FEW)
    store = TraceStore(tmp_path / "run", FEW, limits)
    fill(store, range(20), "length")  # of 1 to 5 tokens
    store.close()
    assert TraceStore(tmp_path / "run", FEW, [0] * 20).todo == []
    store = TraceStore(tmp_path / "run", FEW, [4] * 20)
    assert store.todo == [place for place in range(20) if place % 5 + 1 < 4]
    fill(store, store.todo)
    store.close()
    assert TraceStore(tmp_path / "run", FEW, [4] * 20).todo == []
    assert keys(tmp_path / "run") == FEW
