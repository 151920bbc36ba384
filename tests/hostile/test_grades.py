"""The column `correct` of a trace table: only grades are read, and a score is no grade."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssdfast import traces
from ssdfast.cli.app import run
from tests import tiny

GRADES = {
    "booleans": (pa.array([True, False, None]), [True, False, None]),
    "int64": (pa.array([1, 0, None]), [True, False, None]),
    "uint8": (pa.array([1, 0, 1], pa.uint8()), [True, False, True]),
    "float64": (pa.array([1.0, 0.0, None]), [True, False, None]),
    "float16": (pa.array([1.0, -0.0, None], pa.float16()), [True, False, None]),
    "decimal": (pa.array([Decimal("1.0"), Decimal("0.0"), None]), [True, False, None]),
    "dictionary of booleans": (pa.array([1, 0, 1]).dictionary_encode(), [True, False, True]),
    "nulls": (pa.nulls(3), [None] * 3),
    "strings that are all null": (pa.nulls(3, pa.string()), [None] * 3),
}
NO_GRADES = {
    "reward of -1": (pa.array([1, -1, 0]), "-1"),
    "2": (pa.array([1, 2, 0], pa.int8()), "2"),
    "score": (pa.array([1.0, 0.25, 0.0]), "0.25"),
    "score in float32": (pa.array([1.0, 0.25, 0.0], pa.float32()), "0.25"),
    "NaN": (pa.array([1.0, float("nan"), 0.0]), "nan"),
    "infinity": (pa.array([1.0, float("inf"), 0.0]), "inf"),
    "decimal": (pa.array([Decimal("0.50"), Decimal("1.00"), None]), "Decimal"),
    "dictionary of scores": (pa.array([0.5, 0.0, 1.0]).dictionary_encode(), "0.5"),
    "words": (pa.array(["true", "false", None]), "'true'"),
    "empty word": (pa.array(["", None, None]), "''"),
    "grades of eval": (pa.array(["correct", "incorrect", "timeout"]), "'correct'"),
    "lists": (pa.array([[1], [0], None]), r"\[1\]"),
}


def save(directory: Path, column: pa.Array) -> Path:
    directory.mkdir()
    pq.write_table(tiny.trace_table(3).append_column("correct", column), directory / "a.parquet")
    return directory


@pytest.mark.parametrize(("column", "grades"), GRADES.values(), ids=GRADES)
def test_grades_are_read(tmp_path, column, grades):
    assert [trace.correct for trace in traces.read(save(tmp_path / "traces", column))] == grades


@pytest.mark.parametrize(("column", "value"), NO_GRADES.values(), ids=NO_GRADES)
def test_what_is_no_grade_is_refused_with_a_threshold_as_the_remedy(tmp_path, column, value):
    path = save(tmp_path / "traces", column)
    with pytest.raises(ValueError, match=rf"a.parquet: column correct holds {value}.*threshold, such as correct ="):
        list(traces.read(path))
    with pytest.raises(ValueError, match="column correct holds"):
        traces.write_shard(tmp_path / "written", 0, tiny.trace_table(3).append_column("correct", column))


@pytest.mark.parametrize("command", ["train", "probe"])
def test_commands_refuse_a_score_as_the_grade(tmp_path, capsys, command):
    path = save(tmp_path / "traces", pa.array([1.0, -1.0, 0.25]))
    base, trained = tiny.save_pair(tmp_path)
    models = ["--model", base] if command == "train" else ["--baseline", base, "--trained", trained]
    options = ["--correct-only"] if command == "train" else []
    assert run([command, *models, "--traces", str(path), "--out", str(tmp_path / "out"), *options]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ssdfast:")]
    assert len(lines) == 1
    assert "column correct holds -1.0" in lines[0]
