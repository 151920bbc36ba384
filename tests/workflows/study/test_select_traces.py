"""The traces that an arm trains on: graded, all of them, or resampled to other lengths."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdfast import selected_shard
from ssdfast.traces import read, shard_path, write_shard
from ssdfast.workflows.study.select_traces import (
    INDEX,
    index,
    match_lengths,
    only_correct,
    subsample,
    with_grades,
    without_truncated,
    write,
)

from ... import tiny


def of_lengths(lengths):
    count = len(lengths)
    columns = {name: pa.nulls(count, INDEX.field(name).type) for name in INDEX.names}
    columns |= {"problem_id": [f"problem{i}" for i in range(count)], "sample": [0] * count, "source_row": range(count)}
    return pa.table({**columns, "length": list(lengths), "file": ["file"] * count}, schema=INDEX)


def lengths(table):
    return table["length"].to_numpy()


@given(st.lists(st.integers(1, 400), min_size=30, max_size=200), st.integers(0, 9))
@settings(deadline=None, max_examples=30)
def test_each_is_replaced_by_a_neighbour_in_length(own, seed):
    table = of_lengths(own)
    matched = lengths(match_lengths(table, table, seed))
    assert len(matched) == len(own)
    order, reach = np.sort(own), max(3, round(0.02 * len(own)))
    for target, length in zip(order, np.sort(matched), strict=True):  # windows rise with the target
        place = int(np.searchsorted(order, target))
        assert order[max(0, place - reach)] <= length <= order[min(len(own) - 1, place + reach)]


def test_long_traces_are_drawn_to_short_ones():
    matched = match_lengths(of_lengths(range(1, 301)), of_lengths([5] * 40), 0)
    assert len(matched) == 40
    assert set(lengths(matched)) <= set(range(2, 9))
    assert len(set(lengths(matched))) > 1


def test_truncated_traces_are_left_out():
    table = of_lengths([3] * 3).set_column(3, "finish_reason", pa.array(["stop", "length", "loop"]))
    assert without_truncated(table)["problem_id"].to_pylist() == ["problem0"]


def test_grades_go_to_their_traces_by_problem_and_sample(tmp_path):
    tiny.save_traces(tmp_path / "traces", 4, problem_id=list("aabc"), sample=[0, 1, 0, 0], finish_reason=["stop"] * 4)
    sampled = index(tmp_path / "traces")
    assert sampled["correct"].to_pylist() == [None] * 4
    assert sampled["length"].to_pylist() == [len(trace.completion_ids) for trace in read(tmp_path / "traces")]
    grades = {"problem_id": ["a", "b", "a"], "sample": [1, 0, 0], "grade": ["correct", "no_answer", "incorrect"]}
    pq.write_table(pa.table(grades), tmp_path / "samples.parquet")
    graded = index(tmp_path / "traces", tmp_path / "samples.parquet")
    assert graded["correct"].to_pylist() == [False, True, False, None]
    again = with_grades(sampled.take([1, 1, 3]), graded)  # as a resampled arm has them
    assert again["correct"].to_pylist() == [True, True, None]
    write(graded, tmp_path / "out")
    assert [trace.correct for trace in read(tmp_path / "out")] == [False, True, False, None]
    write(only_correct(graded), tmp_path / "correct")
    assert [trace.trace_id for trace in read(tmp_path / "correct")] == ["a#1"]
    with pytest.raises(ValueError, match="no trace is left"):
        write(graded.slice(0, 0), tmp_path / "none")


def shards(directory, count=3):
    """`count` shards of 4 traces."""
    directory.mkdir(parents=True, exist_ok=True)
    for shard in range(count):
        one = directory.parent / "one"
        tiny.save_traces(one, 4, problem_id=[f"p{shard}{i}" for i in range(4)], finish_reason=["stop"] * 4)
        next(one.rglob("*.parquet")).rename(shard_path(directory, shard))
    return directory


def everything(directory):
    return {trace.trace_id: (*trace.prompt_ids, -1, *trace.completion_ids) for trace in read(directory)}


def test_a_selection_reads_as_its_traces_and_copies_none(tmp_path):
    source = shards(tmp_path / "traces")
    selected = index(source).filter(pc.not_equal(index(source)["problem_id"], "p12"))
    write(selected, tmp_path / "out")
    assert [trace.problem_id for trace in read(tmp_path / "out")] == selected["problem_id"].to_pylist()
    there = everything(source)
    del there["p12#0"]
    assert everything(tmp_path / "out") == there
    assert index(tmp_path / "out").equals(selected)
    assert set(pq.read_schema(shard_path(tmp_path / "out", 1)).names) == set(selected_shard.SCHEMA.names)
    write(index(tmp_path / "out"), tmp_path / "again")  # a selection of a selection names the traces themselves
    assert selected_shard.source_of(shard_path(tmp_path / "again", 1)) == shard_path(source, 1)
    assert everything(tmp_path / "again") == there


def test_a_trace_that_is_drawn_again_is_another_sample(tmp_path):
    source = shards(tmp_path / "traces")
    write(match_lengths(index(source), index(source), 0), tmp_path / "matched")
    matched = everything(tmp_path / "matched")
    assert len(matched) == 12
    there = everything(source)
    again = [trace_id for trace_id in matched if not trace_id.endswith("#0")]
    assert again
    assert all(matched[trace_id] == there[f"{trace_id.split('#')[0]}#0"] for trace_id in matched)


def test_traces_of_several_rounds_through_a_file_are_shards_of_their_own(tmp_path):
    source = shards(tmp_path / "traces", 1)
    write(index(source).take([2, 3, 0, 1]), tmp_path / "out")
    assert list(everything(tmp_path / "out")) == ["p02#0", "p03#0", "p00#0", "p01#0"]


def test_directories_move_together_and_a_source_that_is_gone_or_another_is_refused(tmp_path):
    source = shards(tmp_path / "study" / "traces")
    write(index(source), tmp_path / "study" / "out")
    there = everything(source)
    (tmp_path / "study").rename(tmp_path / "moved")
    moved = tmp_path / "moved"
    assert everything(moved / "out") == there
    shard_path(moved / "traces", 0).rename(tmp_path / "kept")
    with pytest.raises(ValueError, match=r"moved/traces/shard-00000.parquet is missing, which holds the traces that"):
        everything(moved / "out")
    (tmp_path / "kept").rename(shard_path(moved / "traces", 0))
    write_shard(moved / "traces", 1, pq.read_table(shard_path(moved / "traces", 1)).take([1, 0, 2, 3]))
    with pytest.raises(ValueError, match=r"shard-00001.parquet was written again and no longer holds the traces"):
        everything(moved / "out")
    write_shard(moved / "traces", 1, pq.read_table(shard_path(moved / "traces", 1)).take([1, 0]))
    with pytest.raises(ValueError, match="was written again"):
        everything(moved / "out")
    shard_path(moved / "traces", 1).write_bytes(shard_path(moved / "out", 1).read_bytes())
    with pytest.raises(ValueError, match="holds no traces itself"):
        everything(moved / "out")


@pytest.mark.parametrize("rows", [[-1, 0], [1, 0], [0, 4]])
def test_rows_that_no_file_has_are_refused(tmp_path, rows):
    source = shards(tmp_path / "traces", 1)
    table = index(source).slice(0, 2)
    table = table.set_column(INDEX.names.index("source_row"), "source_row", pa.array(rows))
    selected_shard.write_selected(shard_path(tmp_path / "out", 0), shard_path(source, 0), table)
    with pytest.raises(ValueError, match=r"rows that do not ascend from 0|no longer holds"):
        everything(tmp_path / "out")


def test_a_table_of_traces_may_have_a_column_of_that_name(tmp_path):
    source = shards(tmp_path / "traces", 1)
    table = pq.read_table(shard_path(source, 0))
    write_shard(source, 0, table.append_column("source_row", pa.array(range(4))))
    assert len(everything(source)) == 4
    table = table.select(["problem_id", "sample"]).append_column("source_row", pa.array(range(4)))
    pq.write_table(table, shard_path(source, 0))
    with pytest.raises(ValueError, match="does not say of which file"):
        everything(source)


@given(st.lists(st.integers(0, 199), min_size=1, max_size=40), st.integers(1, 300))
@settings(deadline=None, max_examples=30)
def test_any_rows_are_read_in_any_batches(tmp_path_factory, rows, batch):
    directory = tmp_path_factory.mktemp("selected")
    tiny.save_traces(directory / "traces", 200, finish_reason=["stop"] * 200)
    whole = index(directory / "traces")
    taken = whole.take(sorted(rows))
    taken = taken.set_column(1, "sample", pa.array(range(len(rows)), pa.int32()))
    write(taken, directory / "out")
    with selected_shard.open_shard(shard_path(directory / "out", 0)) as shard:
        read_back = pa.Table.from_batches(shard.iter_batches(batch, ["completion_ids", "sample"]))
    source = pq.read_table(directory / "traces")["completion_ids"].take(sorted(rows))
    assert read_back["completion_ids"].to_pylist() == source.to_pylist()
    assert read_back["sample"].to_pylist() == list(range(len(rows)))


def test_some_are_drawn_once_each_and_the_same_again():
    table = of_lengths(range(1, 50))
    assert subsample(table, 10, 0).equals(subsample(table, 10, 0))
    assert len(set(lengths(subsample(table, 10, 0)))) == 10
    assert subsample(table, 0, 0).equals(table)
