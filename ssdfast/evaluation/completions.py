"""Completions to judge: traces of any engine (Parquet), or text from elsewhere (JSONL).

A JSONL line holds `problem_id` (or the question) and `text`, a string or a list of several; all else is optional:
`sample`, `finish_reason`, `tokens`, `prompt`, and the decoding (`temperature`, `top_k`, `top_p`, `min_p`). The names
that other tools give these are known too.
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
from ..problems.duplicates import normalise
from ..problems.problem import Problem, read_problems
from ..problems.rows import USUAL
from .runs import Setting

NAMES = {
    "problem_id": USUAL["problem_id"],
    "question": ("question", "problem"),
    "text": (
        "text", "completion", "response", "output", "generation",
        "completions", "responses", "outputs", "generations",
    ),
    "sample": ("sample", "sample_id", "sample_index"),
    "tokens": ("tokens", "num_tokens", "completion_tokens"),
    "prompt": ("prompt", "messages"),
}  # fmt: skip
_REQUIRED = ("problem_id", "sample", "prompt_ids", "completion_ids", "text")
_OPTIONAL = ("finish_reason", *Setting._fields)


@dataclass(frozen=True, eq=False)
class Completion:
    problem_id: str
    sample: int
    text: str
    ids: np.ndarray | None
    """int32 token ids, None where there is only text"""
    tokens: int | None
    """its length, None where nobody says"""
    finish_reason: str | None
    setting: Setting
    prompt: str
    """fingerprint of what was asked, "" where nobody says; it begins with what it is of, "ids:" or "text:" """
    where: str
    """file and trace or line, for messages"""


def read(path: Path, problems: Mapping[str, Problem]) -> Iterator[Completion]:
    """The completions of a run, a directory of traces, a .parquet or a .jsonl file, in order.

    problems: those asked, by id, for lines that hold a question in place of an id.
    Raises ValueError that names file and line or trace, for what is no completion, was not finished, or is there twice.
    """
    seen: set[tuple[Setting, str, int]] = set()
    for one in _from_jsonl(path, problems) if path.suffix == ".jsonl" else _from_traces(path):
        key = (one.setting, one.problem_id, one.sample)
        if key in seen:
            at = f" at {one.setting}" if str(one.setting) else ""
            raise ValueError(f"{one.where}: sample {one.sample} of problem {one.problem_id} is there twice{at}")
        seen.add(key)
        yield one


def problems_beside(path: Path, config: ProblemsConfig) -> list[Problem]:
    """The problems that come with completions: problems.jsonl of the run, or the lines' own questions and answers.

    Raises ValueError where there are none, and where lines contradict one another.
    """
    if path.suffix == ".jsonl":
        try:
            read = files.load(path, config).problems
        except ValueError as error:
            raise ValueError(f"{path} brings no problems of its own ({error}): name them in problems.sources") from None
        return _distinct(read, path)
    if found := problems_file(path):
        return read_problems(found)
    raise ValueError(f"no problems.jsonl lies beside {path}: name the problems in problems.sources")


def problems_file(path: Path) -> Path | None:
    """problems.jsonl of the run that traces belong to."""
    directories = (path, *list(path.resolve().parents)[:3])
    return next((one / "problems.jsonl" for one in directories if (one / "problems.jsonl").is_file()), None)


def _distinct(read: list[Problem], path: Path) -> list[Problem]:
    """Each problem once, however many samples of it there are; what else is in its lines is no part of it."""
    found: dict[str, Problem] = {}
    id_of: dict[str, str] = {}
    for one in read:
        problem = Problem(one.problem_id, one.question, one.answer, one.source, one.difficulty)
        before = found.setdefault(problem.problem_id, problem)
        if before.answer != problem.answer:
            raise ValueError(
                f"{path}: problem {problem.problem_id} has two gold answers, {before.answer!r} and {problem.answer!r}:"
                " leave one of them, or name the problems in problems.sources"
            )
        first = id_of.setdefault(normalise(problem.question), problem.problem_id)
        if first != problem.problem_id:
            raise ValueError(
                f"{path}: one question has the ids {first} and {problem.problem_id}: samples of a problem have its id"
                " in common, so give problem_id (not the number of the line) or none"
            )
    return list(found.values())


def trace_files(path: Path) -> list[Path]:
    """The Parquet files of a run, of a directory or those below it, or the file itself.

    Raises ValueError for none, and where a run was stopped before its end.
    """
    if path.is_file() and path.suffix != ".parquet":
        raise ValueError(f"{path} is neither .parquet nor .jsonl, which completions come in: convert it")
    below = traces.within(path)
    if unfinished := next(below.rglob(".journal-*"), None):
        raise ValueError(
            f"{unfinished.parent} is a run that goes on or was stopped: finish it with the command that began it, for"
            " what is missing is what takes long"
        )
    nested = below.is_dir() and not any(below.glob("*.parquet"))
    return sorted(below.rglob("*.parquet")) or traces.files(below) if nested else traces.files(below)


def _from_traces(path: Path) -> Iterator[Completion]:
    for file in trace_files(path):
        for table in traces.tables(file, _REQUIRED, _OPTIONAL):
            for place, row in enumerate(table.drop_columns(["prompt_ids", "completion_ids"]).to_pylist()):
                where = f"{file}, trace {row['problem_id']}#{row['sample']}"
                if row.get("finish_reason") in traces.UNFINISHED:
                    raise ValueError(f"{where} was not finished: run the same sampling again, it tries it again")
                row["finish_reason"] = _finish_reason(row, where)
                setting = Setting(*(row.get(name) for name in Setting._fields))
                if any(value != value for value in setting):
                    raise ValueError(f"{where}: its decoding is not a number ({setting}): mend the table")
                prompt_ids, ids = (
                    np.asarray(table[name][place].values.to_numpy(zero_copy_only=False), np.int32)
                    for name in ("prompt_ids", "completion_ids")
                )
                if row["text"] is None and len(ids):
                    raise ValueError(f"{where} has tokens and no text to judge: decode them into the column text")
                yield Completion(
                    problem_id=row["problem_id"],
                    sample=row["sample"],
                    text=row["text"] or "",
                    ids=ids,
                    tokens=len(ids),
                    finish_reason=row["finish_reason"],
                    setting=setting,
                    prompt=f"ids:{hashlib.sha256(prompt_ids.tobytes()).hexdigest()[:16]}",
                    where=where,
                )


def _from_jsonl(path: Path, problems: Mapping[str, Problem]) -> Iterator[Completion]:
    by_question = {normalise(problem.question): name for name, problem in problems.items()}
    taken: dict[tuple[Setting, str], int] = defaultdict(int)
    try:
        for line, row in files.read_jsonl(path):
            where = f"{path}:{line}"
            if isinstance(row, str):
                raise ValueError(f"{where}: {row}")
            setting = Setting(
                *(_number(row, name, kind, where) for name, kind in zip(Setting._fields, _KINDS, strict=True))
            )
            name = _problem_id(row, by_question, where)
            texts, sample = _texts(row, where), _number(row, _name(row, "sample") or "sample", int, where)
            if sample is not None and len(texts) > 1:
                raise ValueError(f"{where}: sample {sample} is one, and its text a list of {len(texts)}: leave it out")
            for text in texts:
                number = taken[setting, name] if sample is None else sample
                taken[setting, name] += 1
                asked = row.get(_name(row, "prompt") or "")
                yield Completion(
                    problem_id=name,
                    sample=number,
                    text=text.encode("utf-8", "replace").decode(),  # JSON can escape half a surrogate pair
                    ids=None,
                    tokens=_number(row, _name(row, "tokens") or "tokens", int, where),
                    finish_reason=_finish_reason(row, where),
                    setting=setting,
                    prompt="" if asked is None else f"text:{_fingerprint(asked)}",
                    where=where,
                )
    except (FileNotFoundError, IsADirectoryError):
        raise ValueError(f"there is no file of completions {path}") from None


_REASONS = {
    "stop": ("eos", "eos_token", "end_turn", "stop_sequence", "STOP"),
    "length": ("max_tokens", "max_length", "max_new_tokens", "MAX_TOKENS"),
    "loop": ("repetition",),
}
_KINDS: tuple[type, ...] = (float, int, float, float)
_MOST = 2**31  # of a column of the table of samples


def _name(row: Mapping[str, Any], field: str) -> str | None:
    """The key of a line that holds a field."""
    return next((name for name in NAMES[field] if row.get(name) is not None), None)


def _problem_id(row: Mapping[str, Any], by_question: Mapping[str, str], where: str) -> str:
    if (name := _name(row, "problem_id")) and row[name] != "":
        if isinstance(row[name], bool) or not isinstance(row[name], str | int):
            raise ValueError(f"{where}: {name!r} is to be text or a whole number, got {row[name]!r}")
        return str(row[name]).encode("utf-8", "replace").decode()
    if name := _name(row, "question"):
        if found := by_question.get(normalise(str(row[name]))):
            return found
        raise ValueError(f"{where}: its question is none of the problems': {str(row[name])[:80]!r}")
    raise ValueError(f"{where}: no problem: give it one of {', '.join((*NAMES['problem_id'], *NAMES['question']))}")


def _texts(row: Mapping[str, Any], where: str) -> list[str]:
    names = [name for name in NAMES["text"] if row.get(name) is not None]
    if not names or row[names[0]] == []:
        raise ValueError(f"{where}: no text: give it one of {', '.join(NAMES['text'])}")
    if len(names) > 1:
        raise ValueError(f"{where}: {names[0]!r} and {names[1]!r} may both be the completion: leave one of them out")
    (name,) = names
    texts = row[name] if isinstance(row[name], list) else [row[name]]
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{where}: {name!r} is to be text, or a list of texts, not {type(text).__name__}")
    return texts


def _number(row: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    value = row.get(name)
    if value is None:
        return None
    whole = kind is int
    fine = isinstance(value, int | float) and not isinstance(value, bool)
    if not (fine and 0 <= value < _MOST and (not whole or value == int(value))):
        kinds = f"{'whole ' * whole}number"
        raise ValueError(f"{where}: {name!r} is to be a {kinds}, got {value!r:.80} (0 to below 2^31 will do)")
    return kind(value)


def _finish_reason(row: Mapping[str, Any], where: str) -> str | None:
    reason = row.get("finish_reason")
    if reason is None:
        return None
    for known, others in _REASONS.items():
        if reason == known or reason in others:
            return known
    raise ValueError(
        f"{where}: the finish_reason {reason!r:.80} is none of {', '.join(_REASONS)} or what other tools call them:"
        " translate it, or leave it out"
    )


def _fingerprint(asked: Any) -> str:
    text = asked if isinstance(asked, str) else f"json {json.dumps(asked, sort_keys=True)}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
