"""The grades of an evaluation beside the traces that it graded: the column `correct`, which training filters by."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .. import traces
from ..config import EvalConfig
from ..evaluation.completions import trace_files
from ..evaluation.runs import KnownSamplingParams

Grades = dict[tuple[KnownSamplingParams, str, int], bool]


def write_grades(directory: Path, config: EvalConfig, samples: pa.Table) -> None:
    """Write the column `correct` of every trace: in place for the traces in `directory`, which the evaluation sampled;
    for those of another run, which is left as it is, in a copy in directory/NAME unless its own grades are the same.

    samples: as `evaluation.samples.SCHEMA`.
    """
    for model in config.models:
        for file in trace_files(directory / model.name):
            graded = _graded(file, grades_of(samples, model.name))
            if graded is not None:
                traces.replace(file, graded)
    for source in config.completions:
        if Path(source.path).suffix.lower() == ".jsonl":
            continue
        files, grades = trace_files(Path(source.path)), grades_of(samples, source.name)
        if (directory / source.name).exists() or any(_graded(file, grades) is not None for file in files):
            for index, file in enumerate(files):
                table = _graded(file, grades)
                table = pq.read_table(file.absolute(), partitioning=None) if table is None else table
                traces.write_shard(directory / source.name, index, table)


def grades_of(samples: pa.Table, checkpoint: str) -> Grades:
    """Whether each sample of a checkpoint is correct, by its sampling parameters, problem and number."""
    names = ("checkpoint", *KnownSamplingParams._fields, "problem_id", "sample", "grade")
    columns = (samples[name].to_pylist() for name in names)
    return {
        (KnownSamplingParams(*sampling), problem_id, sample): grade == "correct"
        for name, *sampling, problem_id, sample, grade in zip(*columns, strict=True)
        if name == checkpoint
    }


def _graded(file: Path, grades: Grades) -> pa.Table | None:
    """The traces of a file with their grades, None where they have these already."""
    names = ("problem_id", "sample", *KnownSamplingParams._fields)
    schema = pq.read_schema(file.absolute())
    present = [name for name in (*names, "correct") if name in schema.names]
    keys = pq.read_table(file.absolute(), columns=present, partitioning=None).to_pylist()
    correct = [
        grades.get(
            (
                KnownSamplingParams(*(row.get(name) for name in KnownSamplingParams._fields)),
                row["problem_id"],
                row["sample"],
            )
        )
        for row in keys
    ]
    if "correct" in schema.names and [row["correct"] for row in keys] == correct:
        return None
    table = pq.read_table(file.absolute(), partitioning=None)
    if "correct" in table.column_names:
        table = table.drop_columns(["correct"])
    return table.append_column("correct", pa.array(correct, pa.bool_()))
