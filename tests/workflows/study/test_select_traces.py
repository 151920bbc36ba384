"""What an arm learns from: judged, whole, or of others' lengths."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdfast.traces import read
from ssdfast.workflows.study.select_traces import judged, some, to_lengths_of, without_cut_off, write

from ... import tiny


def of_lengths(lengths):
    return tiny.trace_table(len(lengths), completion_ids=[[3] * length for length in lengths])


def lengths(table):
    return pa.compute.list_value_length(table["completion_ids"]).to_numpy()


@given(st.lists(st.integers(1, 400), min_size=30, max_size=200), st.integers(0, 9))
@settings(deadline=None, max_examples=30)
def test_each_is_replaced_by_a_neighbour_in_length(own, seed):
    table = of_lengths(own)
    found = lengths(to_lengths_of(table, table, seed))
    assert len(found) == len(own)
    order, reach = np.sort(own), max(3, round(0.02 * len(own)))
    for wanted, length in zip(own, found, strict=True):
        place = int(np.searchsorted(order, wanted))
        assert order[max(0, place - reach)] <= length <= order[min(len(own) - 1, place + reach)]


def test_long_traces_are_drawn_to_short_ones():
    found = to_lengths_of(of_lengths(range(1, 301)), of_lengths([5] * 40), 0)
    assert len(found) == 40
    assert set(lengths(found)) <= set(range(2, 9))
    assert len(set(lengths(found))) > 1


def test_what_was_cut_off_is_left_out():
    table = tiny.trace_table(3, finish_reason=["stop", "length", "loop"])
    assert without_cut_off(table)["problem_id"].to_pylist() == ["problem0"]


def test_verdicts_go_to_their_traces_by_problem_and_sample(tmp_path):
    tiny.save_traces(tmp_path / "traces", 4, problem_id=list("aabc"), sample=[0, 1, 0, 0], finish_reason=["stop"] * 4)
    rows = {"problem_id": list("aab"), "sample": [0, 1, 0], "verdict": ["wrong", "correct", "no_answer"]}
    pq.write_table(pa.table(rows), tmp_path / "verdicts.parquet")
    table = judged(tmp_path / "traces", tmp_path / "verdicts.parquet")
    assert table["correct"].to_pylist() == [False, True, False, None]
    write(table, tmp_path / "out")
    assert [trace.correct for trace in read(tmp_path / "out")] == [False, True, False, None]
    with pytest.raises(ValueError, match="no trace is left"):
        write(table.slice(0, 0), tmp_path / "none")


def test_some_are_drawn_once_each_and_the_same_again():
    table = of_lengths(range(1, 50))
    assert some(table, 10, 0).equals(some(table, 10, 0))
    assert len(set(lengths(some(table, 10, 0)))) == 10
    assert some(table, 0, 0).equals(table)
