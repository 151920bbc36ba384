"""Grading answers: the speed, hostile answers, and the agreement with gold answers and a table graded by hand.

Used by claims_evaluation.py.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import islice
from math import gcd
from pathlib import Path

from common import ROOT

from ssdfast.evaluation.answers.grade import quick_grade
from ssdfast.evaluation.grader_pool import CPU_SECONDS, GraderPool
from ssdfast.evaluation.grading import grade_completions
from ssdfast.evaluation.stats.intervals import wilson
from ssdfast.problems import champ
from ssdfast.problems.problem import Problem

GRADED_BY_HAND = ROOT / "tests" / "evaluation" / "answers" / "graded_pairs.jsonl"
KINDS_OF_ANSWERS = GRADED_BY_HAND.parent / "kinds.jsonl"
WORKERS = 2
EACH = 1000  # pairs of a kind in a round
FEW = 100  # pairs of a harder kind
ROUNDS = 3
WARMING = 400  # pairs that are graded before the clock starts
SLACK = 10.0
"""Seconds that an answer may take beyond its CPU seconds: a new worker starts, other processes use the CPU."""
PUBLISHED = {"65.9 % of 1,000, Wilson": ((659, 1000), (62.91, 68.77))}
"""The replication on competition maths: correct answers, problems, and the ends of its 95 % interval in percent."""

_ROOTS = (2, 3, 5, 6, 7, 10, 11, 13)  # square-free, so that no spelling of one is a spelling of another


@dataclass(frozen=True)
class Pair:
    """A gold answer and another spelling of it, or of a value near it."""

    gold: str
    answer: str
    correct: bool


@dataclass(frozen=True)
class Speed:
    """The speed of grading the mix."""

    per_second: float
    """The median of the rounds, in answers per second."""
    rounds: list[float]
    by_kind: dict[str, float]
    """Answers per second of one kind alone, on pairs of its own."""
    quick_fraction: float
    """The fraction of the pairs that are two plain numbers, which need no worker."""
    pairs: int
    """The number of pairs in a round."""
    misgraded: list[Pair]
    """Pairs whose grade is not the one that they were built with."""


def integers(rng: random.Random) -> Pair:
    """A plain number and seven ways to state it; five of them take a worker."""
    gold = rng.randint(-(10**6), 10**6)
    correct = rng.random() < 0.5
    n = gold if correct else gold + rng.choice((-10, -1, 1, 2))
    part = rng.randint(2, 999)
    spellings = (
        f"${n:,}$",
        f"{n}.0",
        rf"\frac{{{3 * n}}}{{3}}",
        f"x = {n}",
        rf"{n} \text{{ ways}}",
        f"{n - part} + {part}",
        rf"{n - part * part} + {part}^2",
    )
    return Pair(str(gold), rng.choice(spellings), correct)


def fractions(rng: random.Random) -> Pair:
    r"""In lowest terms, ``\frac{35}{12}``; two of its four spellings take a worker."""
    over, under = _ratio(rng)
    correct = rng.random() < 0.5
    p = over if correct else over + under * rng.choice((-1, 1)) + rng.choice((0, 1))
    mixed = rf"{p // under} + \frac{{{p % under}}}{{{under}}}"
    spellings = (f"{3 * p}/{3 * under}", f"{p / under:.9f}", rf"x = \dfrac{{{p}}}{{{under}}}", mixed)
    return Pair(rf"\frac{{{over}}}{{{under}}}", rng.choice(spellings), correct)


def roots(rng: random.Random) -> Pair:
    r"""Fractions times a root: ``\frac{35 \sqrt{7}}{12}``."""
    over, under = _ratio(rng)
    correct = rng.random() < 0.5
    p = over if correct else over + rng.choice((-1, 1))
    root = rng.choice(_ROOTS)
    surd = rf"\sqrt{{{root}}}"
    spellings = (
        rf"\dfrac{{{p}}}{{{under}}} {surd}",
        f"{p}*sqrt({root})/{under}",
        rf"\frac{{{root * p}}}{{{under} {surd}}}",
        rf"\frac{{{2 * p} {surd}}}{{{2 * under}}}",
    )
    return Pair(rf"\frac{{{over} {surd}}}{{{under}}}", rng.choice(spellings), correct)


def sets(rng: random.Random, factors: tuple[int, ...] = (1,)) -> Pair:
    r"""Three to five integers and fractions, some times a root of `factors`, reordered: ``\{3, -7/2, 5 \sqrt{2}\}``."""
    items = sorted({(_rational(rng), rng.choice(factors)) for _ in range(rng.randint(3, 5))})
    correct = rng.random() < 0.5
    value, root = items[0]
    stated = [*items[1:], (value if correct else value - rng.randint(1, 9), root)]  # less than all items
    inside = ", ".join(_spell(*item) for item in stated)
    spellings = (rf"\{{{inside}\}}", inside, rf"$\left\{{ {inside} \right\}}$", rf"x \in \{{{inside}\}}")
    return Pair(rf"\{{{', '.join(_spell(*item) for item in items)}\}}", rng.choice(spellings), correct)


def intervals(rng: random.Random, inequality: bool = False) -> Pair:
    """Bounded, a ray or the union of both, answered by one or by an inequality; wrong by an end or a bracket."""
    under = rng.choice((1, 2, 3, 7))
    a, b, c = (Fraction(end, under) for end in sorted(rng.sample(range(-300, 300), 3)))
    closed, correct = rng.random() < 0.5, rng.random() < 0.5
    (gold, _), (bracket, relation) = _end(a, closed), _end(a, closed)
    if not correct:
        bracket, relation = _end(a, not closed) if rng.random() < 0.5 else _end(a - rng.randint(1, 9), closed)
    near, far = _spell(b), _spell(c)
    form = rng.randrange(3)
    if form == 0:
        spellings = [f"${bracket}, {near})$", rf"x \in {bracket}, {near})", rf"\left{bracket}, {near} \right)"]
        answer = f"{relation} x < {near}" if inequality else rng.choice(spellings)
        return Pair(f"{gold}, {near})", answer, correct)
    if form == 1:
        spellings = [rf"{bracket}, +\infty)", rf"x \in \left{bracket}, \infty \right)", f"{bracket}, ∞)"]
        return Pair(rf"{gold}, \infty)", f"{relation} x" if inequality else rng.choice(spellings), correct)
    answer = rf"({far}, \infty) \cup {bracket}, {near})"
    if inequality:
        answer = rf"{relation} x < {near} \text{{ or }} x > {far}"
    return Pair(rf"{gold}, {near}) \cup ({far}, \infty)", answer, correct)


Build = Callable[[random.Random], Pair]
KINDS: dict[str, Build] = {"integers": integers, "fractions": fractions, "sets": sets, "intervals": intervals}
HARDER: dict[str, Build] = {
    "fractions times a root": roots,
    "sets with roots": partial(sets, factors=(1, 1, *_ROOTS)),
    "intervals answered by an inequality": partial(intervals, inequality=True),
}
"""Not in the mix: each such answer takes arithmetic of many digits."""


def mix(each: int, rounds: int, kinds: dict[str, Build] = KINDS, seed: int = 0) -> list[list[tuple[str, Pair]]]:
    """Rounds of `each` pairs of every kind, shuffled, each with its kind.

    About half of the answers are correct. No gold answer occurs twice in all rounds together, so that no cache of
    golds or of pairs helps, and no answer is the text of its gold answer.
    """
    rng = random.Random(seed)
    mixed: list[list[tuple[str, Pair]]] = [[] for _ in range(rounds)]
    for kind, build in kinds.items():
        pairs = _distinct(build, rng)
        for pairs_of_round in mixed:
            pairs_of_round += [(kind, pair) for pair in islice(pairs, each)]
    for pairs_of_round in mixed:
        rng.shuffle(pairs_of_round)
    return mixed


def speed() -> Speed:
    """Answers per second of two workers, started and warm, on fresh pairs each round; median of three rounds.

    The mix is a quarter each of integers, fractions, sets of three to five of them, and intervals and unions of two,
    in another spelling of the same notation. Roots, and inequalities for intervals, take longer and are timed
    separately, `HARDER`.
    """
    warming, *rounds, single_kinds = mix(EACH, ROUNDS + 2)
    (harder,) = mix(FEW, 1, HARDER)
    speeds, misgraded, by_kind = [], [], {}
    with GraderPool(workers=WORKERS) as pool:
        _grade(pool, warming[:WARMING])
        for pairs in rounds:
            seconds, wrong = _grade(pool, pairs)
            speeds.append(len(pairs) / seconds)
            misgraded += wrong
        for kind in (*KINDS, *HARDER):
            alone = [pair for pair in single_kinds + harder if pair[0] == kind]
            seconds, wrong = _grade(pool, alone)
            by_kind[kind] = len(alone) / seconds
            misgraded += wrong
    quick = [quick_grade(pair.gold, pair.answer) is not None for pairs in rounds for _, pair in pairs]
    return Speed(statistics.median(speeds), speeds, by_kind, statistics.mean(quick), len(rounds[0]), misgraded)


@dataclass(frozen=True)
class Contained:
    """Hostile answers, each graded together with a harmless one by the same workers."""

    seconds: dict[str, float]
    """Wall-clock time until both are graded, by the hostile answer's name."""
    failed: list[str]
    """Names of those graded correct, over the limit of CPU_SECONDS + SLACK, run as code, or harmful to the other."""


def adversarial() -> Contained:
    """Each hostile answer in the tests' table, with the default limits."""
    from tests.evaluation.test_grader_pool import (  # here: other topics run where its imports are not
        ADVERSARIAL,
        EXECUTED,
    )

    seconds: dict[str, float] = {}
    failed: list[str] = []
    ran = Path(EXECUTED)
    with GraderPool(workers=WORKERS) as pool:
        pool.grade([("y", f"{n} y") for n in range(2, 50)])  # starts the workers
        for place, (name, answer) in enumerate(ADVERSARIAL.items(), start=2):
            start = time.perf_counter()
            hostile, harmless = pool.grade([("7", answer), (f"x^{{{place}}} - 1", f"-1 + x^{{{place}}}")])
            seconds[name] = time.perf_counter() - start
            contained = hostile in ("incorrect", "unparsable", "timeout") and harmless == "correct" and not ran.exists()
            if not contained or seconds[name] > CPU_SECONDS + SLACK:
                failed.append(name)
    return Contained(seconds, failed)


def champ_golds() -> tuple[int, list[str]]:
    """How many gold answers of CHAMP equal themselves, respaced so that equal texts do not decide; and the others."""
    golds = [problem.answer or "" for problem in champ.load()]
    with GraderPool(workers=WORKERS) as pool:
        grades = pool.grade([(gold, gold.replace(" ", "  ") + "\n.") for gold in golds])
    others = [gold for gold, grade in zip(golds, grades, strict=True) if grade != "correct"]
    return len(golds) - len(others), others


def graded_by_hand() -> tuple[int, list[str]]:
    """The number of completions graded by hand, and a line for each that is graded otherwise, extraction included."""
    table = [json.loads(line) for line in GRADED_BY_HAND.read_text("utf-8").splitlines()]
    cases = [(Problem(f"by-hand/{place}", "", case["gold"]), case["text"]) for place, case in enumerate(table)]
    with GraderPool(workers=WORKERS) as pool:
        graded = grade_completions(cases, pool)
    misses = [
        f"{case['kind']}: gold {case['gold']}, {case['text']!r} is {case['grade']}, graded {result.grade}"
        for case, result in zip(table, graded, strict=True)
        if result.grade != case["grade"]
    ]
    return len(table), misses


def kinds() -> tuple[int, list[str], list[str]]:
    """The answers in the tests' table of kinds, and a line for each that is wrongly rejected and wrongly accepted."""
    lines = [json.loads(line) for line in KINDS_OF_ANSWERS.read_text("utf-8").splitlines()]
    pairs = [
        (line["kind"], Pair(line["gold"], answer, correct))
        for line in lines
        for correct, answers in ((True, line["equal"]), (False, line["different"]))
        for answer in answers
    ]
    with GraderPool(workers=WORKERS) as pool:
        grades = pool.grade([(pair.gold, pair.answer) for _, pair in pairs])
    wrong = [pair for (_, pair), grade in zip(pairs, grades, strict=True) if (grade == "correct") != pair.correct]
    lost = [f"gold {pair.gold}, {pair.answer} is correct" for pair in wrong if pair.correct]
    return len(pairs), lost, [f"gold {pair.gold}, {pair.answer} is incorrect" for pair in wrong if not pair.correct]


def published() -> Iterator[tuple[str, float]]:
    """Each published interval, and the larger distance of an end of ours from its, in percentage points."""
    for what, (counts, ends) in PUBLISHED.items():
        interval = wilson(*counts)
        yield what, max(abs(100 * interval.ci_low - ends[0]), abs(100 * interval.ci_high - ends[1]))


def _grade(pool: GraderPool, pairs: list[tuple[str, Pair]]) -> tuple[float, list[Pair]]:
    """Seconds, and the pairs whose grade is not the one that they were built with."""
    start = time.perf_counter()
    grades = pool.grade([(pair.gold, pair.answer) for _, pair in pairs])
    seconds = time.perf_counter() - start
    expected = ["correct" if pair.correct else "incorrect" for _, pair in pairs]
    return seconds, [pair for (_, pair), grade, wanted in zip(pairs, grades, expected, strict=True) if grade != wanted]


def _distinct(build: Build, rng: random.Random) -> Iterator[Pair]:
    seen: set[str] = set()
    while True:
        pair = build(rng)
        if pair.gold not in seen and pair.gold != pair.answer:
            seen.add(pair.gold)
            yield pair


def _ratio(rng: random.Random) -> tuple[int, int]:
    """Over and under, in lowest terms; under is at least 2."""
    over, under = rng.randint(1, 999), rng.randint(2, 99)
    while gcd(over, under) > 1:
        over += 1
    return over, under


def _rational(rng: random.Random) -> Fraction:
    return Fraction(rng.choice((-1, 1)) * rng.randint(1, 200), rng.choice((1, 1, 2, 3, 7)))


def _spell(value: Fraction, root: int = 1) -> str:
    text = str(value) if value.denominator == 1 else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    return text if root == 1 else rf"{text} \sqrt{{{root}}}"


def _end(value: Fraction, closed: bool) -> tuple[str, str]:
    """The left end of an interval, as one and as a relation."""
    text = _spell(value)
    return ("[" if closed else "(") + text, rf"{text} \le" if closed else f"{text} <"
