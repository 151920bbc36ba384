"""Problems from the generators of reasoning-gym, each with the metadata that its generator needs to score an answer."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from typing import Any

from ..messages import one_line
from .duplicates import normalise
from .problem import Problem, question_id
from .rows import compact

SCHEME = "reasoning-gym:"
Options = dict[str, Any]

_DRAWS = 64
"""Draws per new problem after which a generator counts as exhausted."""


def generate(name: str, options: Options, seed: int) -> Iterator[Problem]:
    """Distinct problems of the generator `name`, endless, in an order that the seed decides.

    Raises ValueError where reasoning-gym is not installed, for an unknown name or option, and when the generator
    has no more problems.
    """
    _check(name, options)
    seen: set[str] = set()
    start, size = 0, _DRAWS
    while True:
        before = len(seen)
        for entry in _draw(name, options, seed, start, size):
            text = normalise(entry["question"])
            if text not in seen:
                seen.add(text)
                yield _problem(name, options, entry)
        if (len(seen) - before) * _DRAWS < size - start:
            raise ValueError(
                f"{SCHEME}{name} gave {len(seen)} distinct problems in {size:,} draws: lower"
                " problems.limit_per_source, or change problems.generator_options or problems.seed"
            )
        start, size = size, 2 * size


def score(problem: Problem, text: str) -> float:
    """The score of `text` as the answer by the problem's generator, in [0, 1]; 0 for a text that its scorer fails on.

    Some scorers pass the text to Python's eval: score a model's answers in `evaluation.grader_pool`, whose workers
    restrict what such code can do. Raises ValueError for problems of other sources.
    """
    if "generator" not in problem.metadata or "entry" not in problem.metadata:
        raise ValueError(f"the problem {problem.problem_id} has no reasoning-gym generator to score it")
    options = json.dumps(problem.metadata["options"], sort_keys=True)
    entry = {"question": problem.question, "answer": problem.answer, "metadata": _decoded(problem.metadata["entry"])}
    scorer = _scorer(problem.metadata["generator"], options)
    try:
        return float(scorer.score_answer(text, entry))
    except Exception:  # some scorers fail on answers that are not well-formed
        return 0.0


def chain_sums(count: int, seed: int) -> list[Problem]:
    """`count` distinct sums or differences of two digits, in an order that the seed decides.

    problem_id is the same for the same sum under every seed. Raises ValueError where reasoning-gym is not installed,
    and for more than 150 sums (only 200 exist).
    """
    if count > 150:
        raise ValueError(f"there are too few distinct sums for {count} problems: use at most 150")
    options = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    return [_bare_sum(problem) for problem in islice(generate("chain_sum", options, seed), count)]


def _bare_sum(problem: Problem) -> Problem:
    expression = problem.metadata["entry"]["expression"]
    return dataclasses.replace(
        problem, problem_id=f"chain_sum/{expression.replace(' ', '')}", question=f"{expression} = ?"
    )


def _problem(name: str, options: Options, entry: dict[str, Any]) -> Problem:
    source = f"{SCHEME}{name}"
    return Problem(
        problem_id=question_id(source, entry["question"]),
        question=entry["question"],
        answer=entry["answer"],
        source=source,
        difficulty=compact(entry["metadata"].get("difficulty")),
        metadata={"generator": name, "options": options, "entry": _encoded(entry["metadata"])},
    )


def _draw(name: str, options: Options, seed: int, start: int, stop: int) -> Iterator[dict[str, Any]]:
    from reasoning_gym import create_dataset

    try:
        dataset = create_dataset(name, size=stop, seed=seed, **options)
        for position in range(start, stop):
            yield dataset[position]
    except Exception as error:  # generators check their options in different ways, some only when they draw
        raise ValueError(
            f"{SCHEME}{name} cannot draw {stop} problems ({one_line(error)}): change problems.generator_options"
        ) from error


def _check(name: str, options: Options) -> None:
    try:
        from reasoning_gym.factory import DATASETS
    except ImportError:
        raise ValueError(f"{SCHEME}{name} needs a package that is not installed: pip install reasoning-gym") from None
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=5, cutoff=0.5) or sorted(DATASETS)
        raise ValueError(f"reasoning-gym has no generator {name!r}: name one of {', '.join(close)}")
    known = [field.name for field in dataclasses.fields(DATASETS[name][1]) if field.name not in ("seed", "size")]
    if unknown := [option for option in options if option not in known]:
        raise ValueError(
            f"{SCHEME}{name} has no option {unknown[0]!r} in problems.generator_options: it has"
            f" {', '.join(known) or 'none'} (the seed is problems.seed, the size problems.limit_per_source)"
        )


@lru_cache(maxsize=8)
def _scorer(name: str, options: str) -> Any:
    values = json.loads(options)
    _check(name, values)
    from reasoning_gym import create_dataset

    return create_dataset(name, size=1, seed=0, **values)


def _encoded(value: Any) -> Any:
    """`value` as JSON from which `_decoded` restores it: some scorers compare tuples, or look up integer keys."""
    if isinstance(value, dict):
        if all(type(key) is str and not key.startswith("__") for key in value):
            return {key: _encoded(inner) for key, inner in value.items()}
        return {"__items__": [[_encoded(key), _encoded(inner)] for key, inner in value.items()]}
    if isinstance(value, tuple):
        return {"__tuple__": [_encoded(inner) for inner in value]}
    if isinstance(value, list):
        return [_encoded(inner) for inner in value]
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int, float):  # NumPy has subclasses of them
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Fraction):
        return {"__fraction__": str(value)}
    if hasattr(value, "item"):
        return value.item()
    raise ValueError(
        f"the generator's metadata holds {type(value).__name__}, which JSON cannot represent: use another generator"
    )


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    if "__fraction__" in value:
        return Fraction(value["__fraction__"])
    if "__tuple__" in value:
        return tuple(_decoded(inner) for inner in value["__tuple__"])
    if "__items__" in value:
        return {_decoded(key): _decoded(inner) for key, inner in value["__items__"]}
    return {key: _decoded(inner) for key, inner in value.items()}
