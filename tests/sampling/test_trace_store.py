"""No trace is lost, none is written twice, and the shards do not depend on interruptions."""

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssdfast.sampling import trace_store as stores
from ssdfast.sampling.trace_store import TraceStore
from ssdfast.traces import SCHEMA

KEYS = [(f"p{i // 2}", i % 2) for i in range(20)]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(stores, "TRACES_PER_SHARD", 6)


def trace(place, reason="stop", keys=KEYS):
    problem_id, sample = keys[place]
    ids = [place] * (place % 5 + 1)
    row = {
        "problem_id": problem_id,
        "sample": sample,
        "prompt_ids": [1, place],
        "completion_ids": ids,
        "finish_reason": reason,
        "top_ids": [[t, 0] for t in ids],
        "top_logprobs": [[-0.5, -1.0]] * len(ids),
    }
    return pa.RecordBatch.from_pylist([row], schema=SCHEMA)


def fill(store, places, reason="stop"):
    for place in places:
        store.add(trace(place, reason))


def shards(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.glob("*.parquet"))}


def keys(directory):
    table = pq.read_table(directory, columns=["problem_id", "sample"])
    return list(zip(*table.to_pydict().values(), strict=True))


@pytest.fixture
def whole(tmp_path):
    """The shards of an undisturbed run."""
    store = TraceStore(tmp_path / "whole", KEYS)
    fill(store, range(20))
    store.close()
    assert keys(tmp_path / "whole") == KEYS
    assert not list((tmp_path / "whole").glob(".*"))
    return shards(tmp_path / "whole")


@pytest.mark.parametrize("seed", range(4))
def test_any_order_and_any_number_of_kills_give_the_same_parts(whole, tmp_path, seed):
    rng = random.Random(seed)
    for _ in range(50):
        store = TraceStore(tmp_path / "out", KEYS)
        todo = rng.sample(store.todo, min(len(store.todo), rng.randint(1, 4)))
        fill(store, todo)
        if rng.random() < 0.3:
            store.close()  # an end in good order; otherwise it is dropped as a kill would
        if not TraceStore(tmp_path / "out", KEYS).todo:
            break
    last = TraceStore(tmp_path / "out", KEYS)
    assert last.todo == []
    last.close()
    assert shards(tmp_path / "out") == whole
    assert not list((tmp_path / "out").glob(".*"))


def test_a_journal_that_was_cut_gives_all_whole_traces_before_the_cut(tmp_path):
    store = TraceStore(tmp_path, KEYS)
    ends = []
    (journal,) = [None]
    for place in range(5):
        store.add(trace(place))
        (journal,) = tmp_path.glob(".journal-*")
        ends.append(journal.stat().st_size)
    data = journal.read_bytes()
    cuts = sorted({0, 1, *ends, *(e - 1 for e in ends), *range(3, len(data), 97)})
    for cut in cuts:
        directory = tmp_path / f"cut{cut}"
        directory.mkdir()
        (directory / journal.name).write_bytes(data[:cut])
        again = TraceStore(directory, KEYS)
        assert again.todo == list(range(sum(end <= cut for end in ends), 20)), cut
        again.close()
        assert keys(directory) == KEYS[: sum(end <= cut for end in ends)] if cut >= ends[0] else True


def test_a_journal_that_ends_in_zeros_or_noise_is_read_up_to_there(tmp_path):
    store = TraceStore(tmp_path, KEYS)
    fill(store, range(3))
    (journal,) = tmp_path.glob(".journal-*")
    data = journal.read_bytes()
    for i, tail in enumerate([bytes(4096), random.Random(0).randbytes(500)]):
        directory = tmp_path / str(i)
        directory.mkdir()
        (directory / journal.name).write_bytes(data + tail)
        assert TraceStore(directory, KEYS).todo == list(range(3, 20))


def test_a_kill_between_a_part_and_its_journal_leaves_no_trace_twice(whole, tmp_path):
    store = TraceStore(tmp_path / "out", KEYS)
    fill(store, range(5))
    (journal,) = (tmp_path / "out").glob(".journal-*")
    before = journal.read_bytes()
    store.add(trace(5))
    assert not journal.exists()
    journal.write_bytes(before)
    again = TraceStore(tmp_path / "out", KEYS)
    assert again.todo == list(range(6, 20))
    fill(again, range(6, 20))
    again.close()
    assert shards(tmp_path / "out") == whole


def test_what_failed_is_told_and_tried_again_and_replaced(whole, tmp_path):
    store = TraceStore(tmp_path / "out", KEYS)
    fill(store, [i for i in range(20) if i not in (3, 4)])
    fill(store, [3], "error")
    fill(store, [4], "abort")
    assert store.counts == {"stop": 18, "error": 1, "abort": 1}
    store.close()
    assert keys(tmp_path / "out") == KEYS
    again = TraceStore(tmp_path / "out", KEYS)
    assert again.todo == [3, 4]
    fill(again, [4], "error")
    assert again.todo == [3, 4]
    again.close()
    last = TraceStore(tmp_path / "out", KEYS)
    fill(last, [3, 4])
    last.close()
    assert shards(tmp_path / "out") == whole


def test_traces_of_other_problems_are_refused(tmp_path):
    store = TraceStore(tmp_path, KEYS)
    fill(store, range(3))
    store.close()
    with pytest.raises(ValueError, match=r"shard-00000.parquet holds a trace of p1 \(sample 0\), which this"):
        TraceStore(tmp_path, KEYS[:2] + KEYS[4:])
