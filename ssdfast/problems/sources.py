"""All problems of a run: read or generated, without duplicates, and decontaminated against the evaluation's.

Generated problems are compared for equality only, because a template words all its problems alike.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from ..config import ProblemsConfig
from . import champ, files, huggingface, reasoning_gym
from .duplicates import near_duplicates, near_duplicates_between, normalise
from .problem import Problem

_log = logging.getLogger(__name__)

_LISTED = 3
"""The number of pairs in a message."""

Pair = tuple[str, str, float]


@dataclass(frozen=True)
class SkippedProblems:
    """The problems that were skipped, and contamination; pairs are of problem ids."""

    duplicates: list[tuple[str, str]] = field(default_factory=list)
    """(first, skipped): equal up to whitespace and case"""
    near_duplicates: list[Pair] = field(default_factory=list)
    """(first, skipped, similarity)"""
    contamination: list[Pair] = field(default_factory=list)
    """(training, evaluation, similarity); the training problem is skipped where problems.on_contamination is drop"""
    malformed: list[str] = field(default_factory=list)
    """``file:line: reason``"""


@dataclass(frozen=True)
class LoadedProblems:
    problems: list[Problem]
    """In the order of the sources; each problem_id occurs once."""
    skipped: SkippedProblems


def load_problems(config: ProblemsConfig) -> LoadedProblems:
    """The problems of all sources: the first `limit_per_source` of each that are no duplicates, less contaminated ones.

    Raises ValueError for an invalid source, for an id that two sources give to different questions, for contamination
    where problems.on_contamination is error, and where no problem remains.
    """
    if not config.sources:
        raise ValueError(f"problems.sources is empty: set it to one or more of {_source_forms()}")
    skipped = SkippedProblems()
    problems = _gather(config, skipped)
    if config.decontaminate_against:
        evaluation = _gather_evaluation(config, skipped.malformed)
        problems = _without_contamination(problems, evaluation, config, skipped)
    equal, near = len(skipped.duplicates), len(skipped.near_duplicates)
    if equal or near:
        _log.info(
            "problems: %s duplicates and %s near duplicates skipped, %s remain",
            f"{equal:,}",
            f"{near:,}",
            f"{len(problems):,}",
        )
    return LoadedProblems(problems, skipped)


def _gather(config: ProblemsConfig, skipped: SkippedProblems) -> list[Problem]:
    """The first `limit_per_source` of each source, 0 for all, that repeat no earlier one; the rest is in `skipped`."""
    selected: list[Problem] = []
    of_text: dict[str, Problem] = {}
    of_id: dict[str, tuple[str, str]] = {}
    for source in dict.fromkeys(config.sources):
        problems = _problems(source, config, skipped.malformed)
        duplicate_of = (
            _near_duplicates(selected, problems, config.near_duplicate_threshold) if isinstance(problems, list) else {}
        )
        before = len(selected)
        for problem in problems:
            text = normalise(problem.question)
            id_text, id_source = of_id.setdefault(problem.problem_id, (text, source))
            if id_text != text:
                raise ValueError(
                    f"{id_source} and {source} give the id {problem.problem_id!r} to different questions: rename it in "
                    "one of them, or name another column in problems.columns.problem_id"
                )
            if text in of_text:
                skipped.duplicates.append((of_text[text].problem_id, problem.problem_id))
            elif text in duplicate_of:
                first, similarity = duplicate_of[text]
                skipped.near_duplicates.append((first.problem_id, problem.problem_id, similarity))
            else:
                of_text[text] = problem
                selected.append(problem)
                if len(selected) - before == config.limit_per_source:
                    break
    return selected


def _gather_evaluation(config: ProblemsConfig, malformed: list[str]) -> list[Problem]:
    """All problems of the evaluation, each text once, with near duplicates: a problem may resemble only one."""
    of_text: dict[str, Problem] = {}
    for source in dict.fromkeys(config.decontaminate_against):
        problems = _problems(source, config, malformed)
        for problem in problems if isinstance(problems, list) else islice(problems, config.limit_per_source):
            of_text.setdefault(normalise(problem.question), problem)
    return list(of_text.values())


def _problems(source: str, config: ProblemsConfig, malformed: list[str]) -> list[Problem] | Iterator[Problem]:
    """The problems of a source; those of a generator are endless. Skipped lines go to `malformed`."""
    if source == "champ":
        return champ.load()
    if source.startswith(reasoning_gym.SCHEME):
        if not config.limit_per_source:
            raise ValueError(f"{source} generates problems without end: set their number in problems.limit_per_source")
        return reasoning_gym.generate(source.removeprefix(reasoning_gym.SCHEME), config.generator_options, config.seed)
    path = Path(source).expanduser()
    if source.startswith(huggingface.SCHEME):
        read = huggingface.load(source, config)
    elif path.suffix.lower() in files.READERS:
        read = files.load(path, config)
    elif path.is_dir():
        raise ValueError(f"{source} is a directory: name the file in it, or write {huggingface.SCHEME}{source}@SPLIT")
    elif path.is_file():
        raise ValueError(f"{source} is none of {', '.join(files.READERS)}: {files.conversion(path)}")
    else:
        raise ValueError(f"{source} is no source of problems: use {_source_forms()}")
    malformed.extend(read.malformed)
    return read.problems


def _source_forms() -> str:
    return (
        f"a file ({', '.join(files.READERS)}), {reasoning_gym.SCHEME}GENERATOR, champ, or "
        f"{huggingface.SCHEME}DATASET[/SUBSET][@SPLIT]"
    )


def _near_duplicates(
    selected: list[Problem], read: list[Problem], threshold: float
) -> dict[str, tuple[Problem, float]]:
    """By normalised text: near duplicates in `read` of `selected` or of an earlier one, and what they duplicate."""
    of_text: dict[str, Problem] = {}
    for problem in [*selected, *read]:
        if not _is_generated(problem):
            of_text.setdefault(normalise(problem.question), problem)
    texts, problems = list(of_text), list(of_text.values())
    pairs = near_duplicates([problem.question for problem in problems], threshold)
    return {texts[later]: (problems[first], similarity) for first, later, similarity in pairs}


def _is_generated(problem: Problem) -> bool:
    """Whether a generator made it, also where it was read from the file of an earlier run."""
    return problem.source.startswith(reasoning_gym.SCHEME)


def _without_contamination(
    problems: list[Problem], evaluation: list[Problem], config: ProblemsConfig, skipped: SkippedProblems
) -> list[Problem]:
    """`problems`, without contaminated ones unless they are kept. The contaminated pairs go to `skipped`."""
    skipped.contamination.extend(_contamination(problems, evaluation, config.near_duplicate_threshold))
    if not skipped.contamination:
        return problems
    contaminated = {first for first, _, _ in skipped.contamination}
    named = ", ".join(f"{a} and {b} ({similarity:.2f})" for a, b, similarity in skipped.contamination[:_LISTED])
    more = ", ..." if len(skipped.contamination) > _LISTED else ""
    what = (
        f"{len(contaminated):,} of {len(problems):,} problems are near duplicates of evaluation problems: {named}{more}"
    )
    if config.on_contamination == "error":
        raise ValueError(f"{what}: set problems.on_contamination to drop or keep, or change problems.sources")
    _log.warning("%s: %s", what, "kept" if config.on_contamination == "keep" else "dropped")
    if config.on_contamination == "keep":
        return problems
    clean = [problem for problem in problems if problem.problem_id not in contaminated]
    if not clean:
        raise ValueError(f"{what}: none remains, so change problems.sources")
    return clean


def _contamination(problems: list[Problem], evaluation: list[Problem], threshold: float) -> list[Pair]:
    generated = [problem for problem in problems if _is_generated(problem)]
    read = [problem for problem in problems if not _is_generated(problem)]
    evaluation_generated = [problem for problem in evaluation if _is_generated(problem)]
    evaluation_read = [problem for problem in evaluation if not _is_generated(problem)]
    contamination = []
    for ours, theirs, min_similarity in (
        (read, evaluation, threshold),
        (generated, evaluation_read, threshold),
        (generated, evaluation_generated, 1.0),
    ):
        pairs = near_duplicates_between([p.question for p in ours], [p.question for p in theirs], min_similarity)
        contamination += [(ours[i].problem_id, theirs[j].problem_id, similarity) for i, j, similarity in pairs]
    return contamination
