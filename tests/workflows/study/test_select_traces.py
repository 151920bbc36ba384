"""The traces that an arm trains on: graded, all of them, or resampled to other lengths."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdfast.traces import read, shard_path
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
    columns |= {"problem_id": [f"problem{i}" for i in range(count)], "sample": [0] * count, "row": range(count)}
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


def test_a_file_that_is_selected_whole_is_linked_and_any_other_written(tmp_path):
    source = tmp_path / "traces"
    for shard in range(3):
        tiny.save_traces(tmp_path / "one", 4, problem_id=[f"p{shard}{i}" for i in range(4)], finish_reason=["stop"] * 4)
        source.mkdir(exist_ok=True)
        next((tmp_path / "one").rglob("*.parquet")).rename(shard_path(source, shard))
    selected = index(source).filter(pc.not_equal(index(source)["problem_id"], "p12"))
    write(selected, tmp_path / "out")
    same = [shard_path(source, shard).samefile(shard_path(tmp_path / "out", shard)) for shard in range(3)]
    assert same == [True, False, True]
    assert [trace.problem_id for trace in read(tmp_path / "out")] == selected["problem_id"].to_pylist()
    for one, other in zip(
        [trace for trace in read(source) if trace.problem_id != "p12"], read(tmp_path / "out"), strict=True
    ):
        assert (one.completion_ids == other.completion_ids).all()
    twice = match_lengths(index(source), index(source), 0)
    write(twice, tmp_path / "matched")
    assert (
        len({trace.trace_id for trace in read(tmp_path / "matched")}) == 12
    )  # a trace that is drawn again is another sample


def test_some_are_drawn_once_each_and_the_same_again():
    table = of_lengths(range(1, 50))
    assert subsample(table, 10, 0).equals(subsample(table, 10, 0))
    assert len(set(lengths(subsample(table, 10, 0)))) == 10
    assert subsample(table, 0, 0).equals(table)
