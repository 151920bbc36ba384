"""Completions to grade: traces of any engine (Parquet), or text from elsewhere (JSONL).

A JSONL line holds `problem_id` (or the question) and `text`, a string or a list of several; all else is optional:
`sample`, `finish_reason`, `tokens`, `prompt`, and the sampling parameters (`temperature`, `top_k`, `top_p`, `min_p`).
The names that other tools give these are accepted too.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import traces
from ..config import ProblemsConfig
from ..problems import files
from ..problems.columns import ALIASES
from ..problems.duplicates import normalise
from ..problems.problem import Problem, read_problems
from .layouts import CompletionRows
from .runs import KnownSamplingParams

NAMES = {field: ALIASES[field] for field in ("problem_id", "question", "text", "sample", "tokens", "prompt")}
_REQUIRED = ("problem_id", "sample", "prompt_ids", "completion_ids", "text")
_OPTIONAL = ("finish_reason", *KnownSamplingParams._fields)


@dataclass(frozen=True, eq=False)
class Completion:
    problem_id: str
    sample: int
    text: str
    ids: np.ndarray | None
    """int32 token ids, None where there is only text."""
    tokens: int | None
    """The number of tokens, None where it is unknown."""
    finish_reason: str | None
    sampling: KnownSamplingParams
    prompt: str
    """A fingerprint of the prompt's token ids ("ids:…") or text ("text:…"), "" where the prompt is unknown."""
    where: str
    """File and trace or line, for messages."""
    trace_id: str | None
    """As in a table of traces, "problem_id#sample"; None where a file of completions does not number the sample."""


def read(path: Path, problems: Mapping[str, Problem]) -> Iterator[Completion]:
    """The completions of a run, a directory of traces, a .parquet or a .jsonl file, in order.

    problems: by id, for lines that hold a question in place of an id.
    Raises ValueError that names file and line or trace, for a completion that is malformed, unfinished or there twice.
    """
    seen: set[tuple[KnownSamplingParams, str, int]] = set()
    for completion in _from_jsonl(path, problems) if path.suffix.lower() == ".jsonl" else _from_traces(path):
        key = (completion.sampling, completion.problem_id, completion.sample)
        if key in seen:
            sampling = f" at {completion.sampling}" if str(completion.sampling) else ""
            raise ValueError(
                f"{completion.where}: sample {completion.sample} of problem {completion.problem_id} is there"
                f" twice{sampling}: leave one of them out, or number them"
            )
        seen.add(key)
        yield completion


def problems_beside(path: Path, config: ProblemsConfig) -> list[Problem]:
    """The problems beside completions: problems.jsonl of the run, or the lines' own questions and answers.

    Raises ValueError where there are none, and where lines contradict one another.
    """
    if path.suffix.lower() == ".jsonl":
        try:
            problems = files.load(path, config).problems
        except ValueError as error:
            raise ValueError(f"{path} has no problems of its own ({error}): name them in problems.sources") from None
        return _distinct(problems, path)
    if file := problems_file(path):
        return read_problems(file)
    raise ValueError(f"there is no problems.jsonl beside {path}: name the problems in problems.sources")


def problems_file(path: Path) -> Path | None:
    """The problems.jsonl of the run that traces belong to, None where there is none."""
    directories = (path, *list(path.resolve().parents)[:3])
    return next((file for directory in directories if (file := directory / "problems.jsonl").is_file()), None)


def _distinct(rows: list[Problem], path: Path) -> list[Problem]:
    """Each problem once, however many samples of it there are, and without the other keys of its lines."""
    problems: dict[str, Problem] = {}
    id_by_question: dict[str, str] = {}
    for row in rows:
        problem = Problem(row.problem_id, row.question, row.answer, row.source, row.difficulty)
        before = problems.setdefault(problem.problem_id, problem)
        if before.answer != problem.answer:
            raise ValueError(
                f"{path}: problem {problem.problem_id} has two gold answers, {before.answer!r} and {problem.answer!r}:"
                " leave one of them, or name the problems in problems.sources"
            )
        first = id_by_question.setdefault(normalise(problem.question), problem.problem_id)
        if first != problem.problem_id:
            raise ValueError(
                f"{path}: one question has the ids {first} and {problem.problem_id}: samples of a problem share its id,"
                " so give problem_id (not the number of the line) or none"
            )
    return list(problems.values())


def trace_files(path: Path) -> list[Path]:
    """The Parquet files of a run, of a directory or those below it, or the file itself.

    Raises ValueError for none, and where a run is not finished.
    """
    if path.is_file() and path.suffix != ".parquet":
        raise ValueError(f"{path} is neither .parquet nor .jsonl, which completions come in: {files.conversion(path)}")
    return traces.files_below(path)


def _from_traces(path: Path) -> Iterator[Completion]:
    for file in trace_files(path):
        for table in traces.tables(file, _REQUIRED, _OPTIONAL):
            for index, row in enumerate(table.drop_columns(["prompt_ids", "completion_ids"]).to_pylist()):
                trace_id = f"{row['problem_id']}#{row['sample']}"
                where = f"{file}, trace {trace_id}"
                if row.get("finish_reason") in traces.UNFINISHED:
                    raise ValueError(f"{where} was not finished: run the same sampling again, which tries it again")
                row["finish_reason"] = _finish_reason(row, where)
                sampling = KnownSamplingParams(*(row.get(name) for name in KnownSamplingParams._fields))
                if any(value != value for value in sampling):
                    raise ValueError(
                        f"{where}: its sampling parameters are not numbers ({sampling}): correct the table"
                    )
                prompt_ids, ids = (
                    np.asarray(table[name][index].values.to_numpy(zero_copy_only=False), np.int32)
                    for name in ("prompt_ids", "completion_ids")
                )
                if row["text"] is None and len(ids):
                    raise ValueError(f"{where} has tokens and no text to grade: decode them into the column text")
                yield Completion(
                    problem_id=row["problem_id"],
                    sample=row["sample"],
                    text=row["text"] or "",
                    ids=ids,
                    tokens=len(ids),
                    finish_reason=row["finish_reason"],
                    sampling=sampling,
                    prompt=f"ids:{hashlib.sha256(prompt_ids.tobytes()).hexdigest()[:16]}",
                    where=where,
                    trace_id=trace_id,
                )


def _from_jsonl(path: Path, problems: Mapping[str, Problem]) -> Iterator[Completion]:
    by_question = {normalise(problem.question): name for name, problem in problems.items()}
    unnumbered: dict[tuple[KnownSamplingParams, str], int] = defaultdict(int)
    try:
        for where, row in _rows(path):
            sampling = KnownSamplingParams(
                *(
                    _number(row, name, kind, where)
                    for name, kind in zip(KnownSamplingParams._fields, _KINDS, strict=True)
                )
            )
            name = _problem_id(row, by_question, where)
            texts, sample = _texts(row, where), _number(row, _name(row, "sample") or "sample", int, where)
            if sample is not None and len(texts) > 1:
                raise ValueError(
                    f"{where}: sample {sample} has a list of {len(texts)} texts: give one text, or leave the number out"
                )
            for text in texts:
                number = unnumbered[sampling, name] if sample is None else sample
                unnumbered[sampling, name] += 1
                prompt = row.get(_name(row, "prompt") or "")
                yield Completion(
                    problem_id=name,
                    sample=number,
                    text=text.encode("utf-8", "replace").decode(),  # JSON can escape half a surrogate pair
                    ids=None,
                    tokens=_number(row, _name(row, "tokens") or "tokens", int, where),
                    finish_reason=_finish_reason(row, where),
                    sampling=sampling,
                    prompt="" if prompt is None else f"text:{_fingerprint(prompt)}",
                    where=where,
                    trace_id=None if sample is None else f"{name}#{sample}",
                )
    except (FileNotFoundError, IsADirectoryError):
        raise ValueError(f"there is no file of completions {path}") from None


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """File and line of each completion, and its row with lower-case keys."""
    rows = CompletionRows()
    for line, row in files.read_jsonl(path):
        where = f"{path}:{line}"
        if isinstance(row, str):
            raise ValueError(f"{where}: {row}")
        try:
            converted = rows.read(row)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        yield from ((where, completion) for completion in converted)


_REASONS = {
    "stop": ("eos", "eos_token", "end_turn", "stop_sequence", "STOP"),
    "length": ("max_tokens", "max_length", "max_new_tokens", "model_length", "MAX_TOKENS"),
    "loop": ("repetition",),
}
_KINDS: tuple[type, ...] = (float, int, float, float)
_LIMIT = 2**31  # of the integer columns in the table of samples


def _name(row: Mapping[str, Any], field: str) -> str | None:
    """The key of a line that holds a field, None where there is none."""
    return next((name for name in NAMES[field] if row.get(name) is not None), None)


def _problem_id(row: Mapping[str, Any], by_question: Mapping[str, str], where: str) -> str:
    if (name := _name(row, "problem_id")) and row[name] != "":
        if isinstance(row[name], bool) or not isinstance(row[name], str | int):
            raise ValueError(f"{where}: {name!r} must be text or a whole number, got {row[name]!r}")
        return str(row[name]).encode("utf-8", "replace").decode()
    if name := _name(row, "question"):
        if problem_id := by_question.get(normalise(str(row[name]))):
            return problem_id
        raise ValueError(
            f"{where}: its question is not among the problems, {str(row[name])[:80]!r}: name all problems in"
            " problems.sources"
        )
    raise ValueError(
        f"{where}: no problem: give one of the keys {', '.join((*NAMES['problem_id'], *NAMES['question']))}"
    )


def _texts(row: Mapping[str, Any], where: str) -> list[str]:
    names = [name for name in NAMES["text"] if row.get(name) is not None]
    if not names or row[names[0]] == []:
        raise ValueError(f"{where}: no text: give one of the keys {', '.join(NAMES['text'])}")
    if len(names) > 1:
        raise ValueError(f"{where}: {names[0]!r} and {names[1]!r} may both be the completion: leave one of them out")
    (name,) = names
    texts = row[name] if isinstance(row[name], list) else [row[name]]
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{where}: {name!r} must be text or a list of texts, not {type(text).__name__}")
    return texts


def _number(row: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    value = row.get(name)
    if value is None:
        return None
    whole = kind is int
    fine = isinstance(value, int | float) and not isinstance(value, bool)
    if not (fine and 0 <= value < _LIMIT and (not whole or value == int(value))):
        kinds = f"{'whole ' * whole}number"
        raise ValueError(f"{where}: {name!r} must be a {kinds} in [0, 2^31), got {value!r:.80}")
    return kind(value)


def _finish_reason(row: Mapping[str, Any], where: str) -> str | None:
    reason = row.get("finish_reason")
    if reason is None:
        return None
    for known, others in _REASONS.items():
        if reason == known or reason in others:
            return known
    raise ValueError(
        f"{where}: the finish_reason {reason!r:.80} is not one of {', '.join(_REASONS)} nor another tool's name for"
        " them: translate it, or leave it out"
    )


def _fingerprint(prompt: Any) -> str:
    text = prompt if isinstance(prompt, str) else f"json {json.dumps(prompt, sort_keys=True)}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
