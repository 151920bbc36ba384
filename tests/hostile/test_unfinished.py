"""A run of sampling that was stopped, killed or still runs is not taken for a whole one by any stage."""

import json
import logging
from pathlib import Path

import pyarrow as pa
import pytest

from ssdfast import cli, models, trace_checks, traces
from ssdfast.sampling import runner
from ssdfast.sampling.trace_store import TraceStore

from .. import tiny
from .test_models import command, mistake

STOPPED = "is a run that is running or was stopped: finish it with the command that began it"


@pytest.fixture
def inputs(tmp_path):
    tiny.save_model(tmp_path / "model")
    rows = [{"id": f"p{i}", "question": f"word{i} word3", "answer": "7"} for i in range(5)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "chat.jinja").write_text("{% for m in messages %}{{ m.content }} {% endfor %}")
    return tmp_path


@pytest.fixture
def stopped(inputs, monkeypatch):
    """The directory of a run that Ctrl-C stopped after three traces; they are in a Parquet file."""
    added = []

    def add(self, ids):
        added.append(ids)
        if len(added) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runner.PaddingIds, "add", add)
        assert cli.run(command("sample", inputs, inputs / "model", inputs / "traces")) == 130
    assert len(list((inputs / "traces" / "traces").glob("*.parquet"))) == 1
    return inputs / "traces"


@pytest.mark.parametrize("directory", ["", "traces"])
@pytest.mark.parametrize("stage", ["train", "probe", "eval"])
def test_a_stopped_run_is_refused_by_every_stage(stage, directory, stopped, inputs, capsys):
    source, out = stopped / directory, inputs / "out"
    arguments = {
        "train": ["--model", inputs / "model", "--traces", source],
        "probe": ["--baseline", inputs / "model", "--trained", inputs / "model", "--traces", source],
        "eval": ["--completions", source],
    }[stage]
    line = mistake(capsys, [stage, "--out", str(out), *map(str, arguments)])
    assert STOPPED in line
    assert str(stopped / "traces") in line
    assert "or remove .unfinished there to use the traces that it has" in line


def test_a_run_that_continues_to_its_end_is_accepted(stopped, inputs):
    assert cli.run(command("sample", inputs, inputs / "model", stopped)) == 0
    assert len(list(traces.read(stopped))) == 5


def test_a_run_without_its_mark_is_accepted(stopped):
    (stopped / "traces" / traces.MARK).unlink()
    assert len(list(traces.read(stopped))) == 3


def test_a_run_is_marked_from_its_first_trace_on(tmp_path):
    store = TraceStore(tmp_path, [("problem0", 0), ("problem1", 0), ("problem2", 0)])
    rows = tiny.trace_table(3).to_pylist()
    first, second, third = pa.Table.from_pylist(rows, traces.SCHEMA).to_batches(max_chunksize=1)
    store.add(first)  # and no more, as in a run that was killed
    with pytest.raises(ValueError, match=STOPPED):
        traces.files(tmp_path)
    store.add(second)
    store.close()
    with pytest.raises(ValueError, match=STOPPED):
        traces.files(tmp_path)
    store.add(third)
    store.close()
    assert [trace.trace_id for trace in traces.read(tmp_path)] == ["problem0#0", "problem1#0", "problem2#0"]


def test_traces_that_failed_are_warned_of(inputs, caplog):
    model = models.model_info(str(inputs / "model"))
    path = tiny.save_traces(inputs / "traces", 4, finish_reason=["stop", "error", "abort", "error"])
    with caplog.at_level(logging.WARNING, "ssdfast"):
        assert len(list(trace_checks.rows_for_model(Path(path), (), model.vocabulary, model.tokenizer))) == 1
    assert "traces that failed are left out (1 abort, 2 error): the same sampling tries them again" in caplog.text
