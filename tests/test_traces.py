"""The trace table: what goes in comes out, and what is no trace table is refused by name."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssdfast import run_dir, trace_checks, traces

from . import tiny


def test_a_part_comes_back_as_it_was(tmp_path):
    table = tiny.trace_table(3, difficulty=["easy", "hard", "hard"])
    traces.write_shard(tmp_path, 0, table)
    assert pq.read_table(traces.shard_path(tmp_path, 0)).equals(table)


def test_parts_are_read_in_order(tmp_path):
    for index in (1, 0):
        traces.write_shard(tmp_path, index, tiny.trace_table(2, problem_id=[f"{index}a", f"{index}b"]))
    assert [trace.trace_id for trace in traces.read(tmp_path)] == ["0a#0", "0b#0", "1a#0", "1b#0"]


def test_ids_come_back_as_they_were(tmp_path):
    path = tiny.save_traces(tmp_path, prompt_ids=[[5, 6]], completion_ids=[[7]], count=1)
    (trace,) = traces.read(Path(path))
    assert (trace.prompt_ids.tolist(), trace.completion_ids.tolist(), len(trace)) == ([5, 6], [7], 3)


def test_columns_that_only_tell_the_origin_may_be_missing(tmp_path):
    file = tmp_path / "mine.parquet"
    pq.write_table(tiny.trace_table(2).select(list(traces.REQUIRED)), file)
    assert len(list(traces.read(file))) == 2


def test_a_part_without_a_column_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="lacks sample"):
        traces.write_shard(tmp_path, 0, tiny.trace_table(1).drop_columns("sample"))
    assert not list(tmp_path.iterdir())


def test_a_truncated_file_is_named(tmp_path):
    file = traces.write_shard(tmp_path, 0, tiny.trace_table(50))
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"shard-00000.parquet is not a complete Parquet file"):
        list(traces.read(tmp_path))


def test_a_foreign_table_is_named_with_what_it_lacks(tmp_path):
    pq.write_table(pa.table({"problem_id": ["a"], "answer": ["b"]}), tmp_path / "foreign.parquet")
    with pytest.raises(
        ValueError, match=r"foreign.parquet .* lacks sample, prompt_ids, completion_ids \(its columns: p"
    ):
        list(traces.read(tmp_path))


def test_a_column_of_another_type_is_named(tmp_path):
    table = tiny.trace_table(1).drop_columns("completion_ids").append_column("completion_ids", pa.array(["7 8"]))
    pq.write_table(table, tmp_path / "text.parquet")
    with pytest.raises(ValueError, match=r"text.parquet: column completion_ids must have the type list.*not string"):
        list(traces.read(tmp_path))


@pytest.mark.parametrize("values", [[None], [[3, None]]])
def test_missing_ids_are_refused(tmp_path, values):
    column = pa.array(values, type=pa.list_(pa.int32()))
    table = tiny.trace_table(1).drop_columns("completion_ids").append_column("completion_ids", column)
    pq.write_table(table, tmp_path / "null.parquet")
    with pytest.raises(ValueError, match=r"null.parquet: column completion_ids has empty \(null\) values"):
        list(traces.read(tmp_path))


@pytest.mark.parametrize("bad", [tiny.VOCABULARY, -1])
def test_an_id_outside_the_vocabulary_is_named_with_its_place(tmp_path, bad):
    path = tiny.save_traces(tmp_path, count=1, completion_ids=[[4, 4, bad]])
    (trace,) = traces.read(Path(path))
    with pytest.raises(
        ValueError, match=f"shard-00000.parquet, trace problem0#0: completion position 2 holds.* {bad}, "
    ):
        trace_checks.check_ids(trace, tiny.VOCABULARY)


def test_an_empty_prompt_is_refused(tmp_path):
    tiny.save_traces(tmp_path, count=1, prompt_ids=[[]])
    with pytest.raises(ValueError, match="problem0#0: the prompt is empty"):
        list(traces.read(tmp_path))


def test_a_repeated_trace_is_refused(tmp_path):
    for index in (0, 1):
        traces.write_shard(tmp_path, index, tiny.trace_table(1))
    with pytest.raises(ValueError, match="problem0#0 occurs twice"):
        list(traces.read(tmp_path))


def test_no_traces_at_a_path(tmp_path):
    with pytest.raises(ValueError, match=r"holds no .parquet file"):
        list(traces.read(tmp_path))
    with pytest.raises(ValueError, match="there are no traces at"):
        list(traces.read(tmp_path / "nowhere"))


def test_texts_that_are_not_what_the_ids_say_are_refused(tmp_path):
    words = ["a", "b", "c", "</s>"]
    tiny.save_traces(tmp_path, 3, completion_ids=[[0, 1], [1, 2], [2, 3]], text=["", "other", "c"])

    def decode(ids):
        return " ".join(words[i] for i in ids)

    trace_checks.check_texts(tmp_path, decode, tiny.VOCABULARY)  # one that agrees is enough: texts are a convenience
    words[2] = "d"
    with pytest.raises(ValueError, match=r"problem1#0: its text is 'other', but .* decodes .* 'b d'"):
        trace_checks.check_texts(tmp_path, decode, tiny.VOCABULARY)
    tiny.save_traces(tmp_path / "without", 3)
    trace_checks.check_texts(tmp_path / "without", decode, tiny.VOCABULARY)


def test_shards_have_the_versions_in_their_metadata(tmp_path):
    file = traces.write_shard(tmp_path, 0, tiny.trace_table(2))
    assert json.loads(pq.read_schema(file).metadata[b"ssdfast"]) == run_dir.schema_stamp()
    foreign = tmp_path / "foreign" / "data.parquet"
    foreign.parent.mkdir()
    pq.write_table(tiny.trace_table(2), foreign)
    assert len(list(traces.read(foreign.parent))) == 2
