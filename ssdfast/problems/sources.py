"""All problems of a run: read or generated, without duplicates, and held against those of the evaluation.

Generated problems are compared for equality alone: a template makes all its problems alike in wording.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from ..config import ProblemsConfig
from ..progress import say
from . import champ, files, huggingface, reasoning_gym
from .duplicates import near_duplicates, near_duplicates_between, normalise
from .problem import Problem

_NAMED = 3
"""pairs that a message names"""

Pair = tuple[str, str, float]


@dataclass(frozen=True)
class LeftOut:
    """What was found beside the problems; pairs are of problem ids."""

    duplicates: list[tuple[str, str]] = field(default_factory=list)
    """(kept, left out): equal but for whitespace and case"""
    near_duplicates: list[Pair] = field(default_factory=list)
    """(kept, left out, similarity)"""
    contamination: list[Pair] = field(default_factory=list)
    """(of training, held out, similarity); the first one is left out where problems.on_contamination is drop"""
    malformed: list[str] = field(default_factory=list)
    """``file:line: why``"""


@dataclass(frozen=True)
class Loaded:
    problems: list[Problem]
    """in the order of the sources, each problem_id once"""
    left_out: LeftOut


def load_problems(config: ProblemsConfig) -> Loaded:
    """The problems of all sources: the first `limit_per_source` of each that are no duplicates, less contaminated ones.

    Raises ValueError for what is wrong with a source, for an id that two of them give to different questions, for
    contamination unless it is to be dropped or kept, and where no problem remains.
    """
    if not config.sources:
        raise ValueError(f"problems.sources is empty: name where the problems come from, each {_known()}")
    left_out = LeftOut()
    problems = _gather(config, left_out)
    if config.decontaminate_against:
        held_out = _gather_held_out(config, left_out.malformed)
        problems = _without_contamination(problems, held_out, config, left_out)
    equal, near = len(left_out.duplicates), len(left_out.near_duplicates)
    if equal or near:
        say(f"problems: {equal:,} duplicates and {near:,} near duplicates left out, {len(problems):,} remain")
    return Loaded(problems, left_out)


def _gather(config: ProblemsConfig, left_out: LeftOut) -> list[Problem]:
    """The first `limit_per_source` of each source, 0 for all, that repeat no earlier one; `left_out` gets the rest."""
    kept: list[Problem] = []
    of_text: dict[str, Problem] = {}
    of_id: dict[str, tuple[str, str]] = {}
    for source in dict.fromkeys(config.sources):
        problems = _problems(source, config, left_out.malformed)
        like = _like(kept, problems, config.near_duplicate_threshold) if isinstance(problems, list) else {}
        before = len(kept)
        for problem in problems:
            text = normalise(problem.question)
            id_text, id_source = of_id.setdefault(problem.problem_id, (text, source))
            if id_text != text:
                raise ValueError(
                    f"{id_source} and {source} give the id {problem.problem_id!r} to different questions: rename it in "
                    "one of them, or name another column in problems.columns.problem_id"
                )
            if text in of_text:
                left_out.duplicates.append((of_text[text].problem_id, problem.problem_id))
            elif text in like:
                first, similarity = like[text]
                left_out.near_duplicates.append((first.problem_id, problem.problem_id, similarity))
            else:
                of_text[text] = problem
                kept.append(problem)
                if len(kept) - before == config.limit_per_source:
                    break
    return kept


def _gather_held_out(config: ProblemsConfig, malformed: list[str]) -> list[Problem]:
    """All that the evaluation may ask, each text once. Near duplicates stay: a problem may be like only one of them."""
    of_text: dict[str, Problem] = {}
    for source in dict.fromkeys(config.decontaminate_against):
        problems = _problems(source, config, malformed)
        for problem in problems if isinstance(problems, list) else islice(problems, config.limit_per_source):
            of_text.setdefault(normalise(problem.question), problem)
    return list(of_text.values())


def _problems(source: str, config: ProblemsConfig, malformed: list[str]) -> list[Problem] | Iterator[Problem]:
    """What a source holds; that of a generator has no end. `malformed` gets the lines that were skipped."""
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
    else:
        raise ValueError(f"{source} is no source of problems: write {_known()}")
    malformed.extend(read.malformed)
    return read.problems


def _known() -> str:
    return (
        f"a file ({', '.join(files.READERS)}), {reasoning_gym.SCHEME}GENERATOR, champ, or "
        f"{huggingface.SCHEME}DATASET[/SUBSET][@SPLIT]"
    )


def _like(kept: list[Problem], read: list[Problem], threshold: float) -> dict[str, tuple[Problem, float]]:
    """By normalised text, the problems of `read` that are like one of `kept` or an earlier one, and which."""
    of_text: dict[str, Problem] = {}
    for problem in [*kept, *read]:
        if not _is_generated(problem):
            of_text.setdefault(normalise(problem.question), problem)
    texts, problems = list(of_text), list(of_text.values())
    pairs = near_duplicates([problem.question for problem in problems], threshold)
    return {texts[later]: (problems[first], similarity) for first, later, similarity in pairs}


def _is_generated(problem: Problem) -> bool:
    """Whether a template worded it; so it is too where it comes from the file of an earlier run."""
    return problem.source.startswith(reasoning_gym.SCHEME)


def _without_contamination(
    problems: list[Problem], held_out: list[Problem], config: ProblemsConfig, left_out: LeftOut
) -> list[Problem]:
    """`problems`, or those that no held-out one is like; `left_out` gets the pairs."""
    left_out.contamination.extend(_contamination(problems, held_out, config.near_duplicate_threshold))
    if not left_out.contamination:
        return problems
    contaminated = {first for first, _, _ in left_out.contamination}
    named = ", ".join(f"{a} like {b} ({similarity:.2f})" for a, b, similarity in left_out.contamination[:_NAMED])
    more = ", ..." if len(left_out.contamination) > _NAMED else ""
    what = f"{len(contaminated):,} of {len(problems):,} problems are like held-out ones: {named}{more}"
    if config.on_contamination == "error":
        raise ValueError(f"{what}: set problems.on_contamination to drop or keep, or change problems.sources")
    say(f"{what}: {'kept' if config.on_contamination == 'keep' else 'left out'}")
    if config.on_contamination == "keep":
        return problems
    clean = [problem for problem in problems if problem.problem_id not in contaminated]
    if not clean:
        raise ValueError(f"{what}: none remains, so name other problems.sources")
    return clean


def _contamination(problems: list[Problem], held_out: list[Problem], threshold: float) -> list[Pair]:
    generated = [problem for problem in problems if _is_generated(problem)]
    read = [problem for problem in problems if not _is_generated(problem)]
    held_out_generated = [problem for problem in held_out if _is_generated(problem)]
    held_out_read = [problem for problem in held_out if not _is_generated(problem)]
    found = []
    for ours, theirs, least in (
        (read, held_out, threshold),
        (generated, held_out_read, threshold),
        (generated, held_out_generated, 1.0),
    ):
        pairs = near_duplicates_between([p.question for p in ours], [p.question for p in theirs], least)
        found += [(ours[i].problem_id, theirs[j].problem_id, similarity) for i, j, similarity in pairs]
    return found
