"""The traces that an arm trains on: graded, all of them, or resampled to other lengths."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdfast.traces import read
from ssdfast.workflows.study.select_traces import match_lengths, subsample, with_grades, without_truncated, write
from ssdfast.workflows.study.select_traces import read as read_table

from ... import tiny


def of_lengths(lengths):
    return tiny.trace_table(len(lengths), completion_ids=[[3] * length for length in lengths])


def lengths(table):
    return pa.compute.list_value_length(table["completion_ids"]).to_numpy()


@given(st.lists(st.integers(1, 400), min_size=30, max_size=200), st.integers(0, 9))
@settings(deadline=None, max_examples=30)
def test_each_is_replaced_by_a_neighbour_in_length(own, seed):
    table = of_lengths(own)
    matched = lengths(match_lengths(table, table, seed))
    assert len(matched) == len(own)
    order, reach = np.sort(own), max(3, round(0.02 * len(own)))
    for target, length in zip(own, matched, strict=True):
        place = int(np.searchsorted(order, target))
        assert order[max(0, place - reach)] <= length <= order[min(len(own) - 1, place + reach)]


def test_long_traces_are_drawn_to_short_ones():
    matched = match_lengths(of_lengths(range(1, 301)), of_lengths([5] * 40), 0)
    assert len(matched) == 40
    assert set(lengths(matched)) <= set(range(2, 9))
    assert len(set(lengths(matched))) > 1


def test_truncated_traces_are_left_out():
    table = tiny.trace_table(3, finish_reason=["stop", "length", "loop"])
    assert without_truncated(table)["problem_id"].to_pylist() == ["problem0"]


def test_grades_go_to_their_traces_by_problem_and_sample(tmp_path):
    tiny.save_traces(tmp_path / "traces", 4, problem_id=list("aabc"), sample=[0, 1, 0, 0], finish_reason=["stop"] * 4)
    sampled = read_table(tmp_path / "traces")
    assert sampled["correct"].to_pylist() == [None] * 4
    graded = pa.table({"seed": [0, 1, 2], "correct": [False, True, False]})
    table = with_grades(sampled, graded)
    assert table["correct"].to_pylist() == [False, True, False, None]
    again = with_grades(sampled.take([1, 1, 3]), graded)  # as a resampled arm has them
    assert again["correct"].to_pylist() == [True, True, None]
    write(table, tmp_path / "out")
    assert [trace.correct for trace in read(tmp_path / "out")] == [False, True, False, None]
    with pytest.raises(ValueError, match="no trace is left"):
        write(table.slice(0, 0), tmp_path / "none")


def test_some_are_drawn_once_each_and_the_same_again():
    table = of_lengths(range(1, 50))
    assert subsample(table, 10, 0).equals(subsample(table, 10, 0))
    assert len(set(lengths(subsample(table, 10, 0)))) == 10
    assert subsample(table, 0, 0).equals(table)
