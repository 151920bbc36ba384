"""The grades of an evaluation beside the traces that it graded: the column `correct`, which training filters by."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .. import traces
from ..config import EvalConfig
from ..evaluation.completions import trace_files
from ..evaluation.runs import KnownSamplingParams
from ..selected_shard import held_rows, open_shard, write_selected

Grades = dict[tuple[KnownSamplingParams, str, int], bool]


def write_grades(directory: Path, config: EvalConfig, samples: pa.Table, of_others: bool) -> None:
    """Write the column `correct` of every trace: in place for the traces in `directory`, which the evaluation sampled;
    for those of another run, which is left as it is, in shards in directory/NAME that name its traces, unless its own
    grades are the same.

    of_others: False writes no grades for the traces of other runs.
    samples: as `evaluation.samples.SCHEMA`.
    """
    for model in config.models:
        grades = grades_of(samples, model.name)
        for file in trace_files(directory / model.name):
            if not _has_grades(file, grades):
                traces.replace(file, _with_grades(file, grades))
    for source in config.completions if of_others else ():
        if Path(source.path).suffix.lower() == ".jsonl":
            continue
        files, grades = trace_files(Path(source.path)), grades_of(samples, source.name)
        if (directory / source.name).exists() or not all(_has_grades(file, grades) for file in files):
            for index, file in enumerate(files):
                _write_graded(traces.shard_path(directory / source.name, index), file, grades)


def grades_of(samples: pa.Table, checkpoint: str) -> Grades:
    """Whether each sample of a checkpoint is correct, by its sampling parameters, problem and number."""
    names = ("checkpoint", *KnownSamplingParams._fields, "problem_id", "sample", "grade")
    columns = (samples[name].to_pylist() for name in names)
    return {
        (KnownSamplingParams(*sampling), problem_id, sample): grade == "correct"
        for name, *sampling, problem_id, sample, grade in zip(*columns, strict=True)
        if name == checkpoint
    }


def _has_grades(file: Path, grades: Grades) -> bool:
    """Whether the traces of a file have these grades already."""
    with open_shard(file) as shard:
        if "correct" not in shard.schema_arrow.names:
            return False
        correct = shard.read(["correct"])["correct"].to_pylist()
    return correct == _grades_in_order(file, grades)


def _with_grades(file: Path, grades: Grades) -> pa.Table:
    """The traces of a file that holds them, with the column `correct`, the last one."""
    table = pq.read_table(file.absolute(), partitioning=None)
    if "correct" in table.column_names:
        table = table.drop_columns(["correct"])
    return table.append_column("correct", pa.array(_grades_in_order(file, grades), pa.bool_()))


def _write_graded(path: Path, file: Path, grades: Grades) -> None:
    """Write a shard that names all traces of a file, with their grades."""
    source, table = held_rows(file)
    with open_shard(file) as shard:
        keys = shard.read(["problem_id", "sample"])
    for name in keys.column_names:
        table = table.append_column(name, keys[name])
    correct = pa.array(_grades_in_order(file, grades), pa.bool_())
    write_selected(path, source, table.append_column("correct", correct))


def _grades_in_order(file: Path, grades: Grades) -> list[bool | None]:
    """Of each trace of a file; None for one that was not graded."""
    names = ("problem_id", "sample", *KnownSamplingParams._fields)
    with open_shard(file) as shard:
        keys = shard.read([name for name in names if name in shard.schema_arrow.names]).to_pylist()
    return [
        grades.get((KnownSamplingParams(*map(row.get, KnownSamplingParams._fields)), row["problem_id"], row["sample"]))
        for row in keys
    ]
