"""Judging answers: how fast, through hostile ones, and how well against golds and a table labelled by hand.

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

from ssdfast.evaluation.answers.equal import quick_grade
from ssdfast.evaluation.grader_pool import SECONDS, GraderPool
from ssdfast.evaluation.grading import grade_completions
from ssdfast.evaluation.stats.intervals import wilson
from ssdfast.problems import champ
from ssdfast.problems.problem import Problem

LABELLED = ROOT / "tests" / "evaluation" / "answers" / "graded_pairs.jsonl"
WORKERS = 2
EACH = 1000  # pairs of a kind in a round
FEW = 100  # pairs of a harder kind
ROUNDS = 3
WARMING = 400  # pairs that are checked before the clock
SLACK = 10.0
"""seconds that an answer may take beyond those of a check: its worker's successor starts, others have the processor"""
PUBLISHED = {"65.9 % of 1,000, Wilson": ((659, 1000), (62.91, 68.77))}
"""of the replication on competition maths: right answers, problems, and the ends of its 95 % interval in percent"""

_ROOTS = (2, 3, 5, 6, 7, 10, 11, 13)  # square-free, so that no spelling of one is a spelling of another


@dataclass(frozen=True)
class Made:
    """A gold answer and another spelling of it, or of a value near it."""

    gold: str
    answer: str
    right: bool


@dataclass(frozen=True)
class Speed:
    """Of checking the mix."""

    per_second: float
    """median of the rounds"""
    rounds: list[float]
    by_kind: dict[str, float]
    """checks a second of one kind alone, on pairs of its own"""
    quick: float
    """share of the pairs that are two plain numbers to the letter, which takes no worker"""
    pairs: int
    """of a round"""
    unlike: list[Made]
    """judged otherwise than they were made"""


def integers(rng: random.Random) -> Made:
    """A plain number and seven ways to state it; five of them take a worker."""
    gold = rng.randint(-(10**6), 10**6)
    right = rng.random() < 0.5
    n = gold if right else gold + rng.choice((-10, -1, 1, 2))
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
    return Made(str(gold), rng.choice(spellings), right)


def fractions(rng: random.Random) -> Made:
    r"""In lowest terms, ``\frac{35}{12}``; two of its four spellings take a worker."""
    over, under = _ratio(rng)
    right = rng.random() < 0.5
    p = over if right else over + under * rng.choice((-1, 1)) + rng.choice((0, 1))
    mixed = rf"{p // under} + \frac{{{p % under}}}{{{under}}}"
    spellings = (f"{3 * p}/{3 * under}", f"{p / under:.9f}", rf"x = \dfrac{{{p}}}{{{under}}}", mixed)
    return Made(rf"\frac{{{over}}}{{{under}}}", rng.choice(spellings), right)


def roots(rng: random.Random) -> Made:
    r"""Fractions times a root: ``\frac{35 \sqrt{7}}{12}``."""
    over, under = _ratio(rng)
    right = rng.random() < 0.5
    p = over if right else over + rng.choice((-1, 1))
    root = rng.choice(_ROOTS)
    surd = rf"\sqrt{{{root}}}"
    spellings = (
        rf"\dfrac{{{p}}}{{{under}}} {surd}",
        f"{p}*sqrt({root})/{under}",
        rf"\frac{{{root * p}}}{{{under} {surd}}}",
        rf"\frac{{{2 * p} {surd}}}{{{2 * under}}}",
    )
    return Made(rf"\frac{{{over} {surd}}}{{{under}}}", rng.choice(spellings), right)


def sets(rng: random.Random, factors: tuple[int, ...] = (1,)) -> Made:
    r"""Three to five integers and fractions, some times a root of `factors`, reordered: ``\{3, -7/2, 5 \sqrt{2}\}``."""
    items = sorted({(_rational(rng), rng.choice(factors)) for _ in range(rng.randint(3, 5))})
    right = rng.random() < 0.5
    value, root = items[0]
    said = [*items[1:], (value if right else value - rng.randint(1, 9), root)]  # less than the least: in no set yet
    inside = ", ".join(_spelled(*item) for item in said)
    spellings = (rf"\{{{inside}\}}", inside, rf"$\left\{{ {inside} \right\}}$", rf"x \in \{{{inside}\}}")
    return Made(rf"\{{{', '.join(_spelled(*item) for item in items)}\}}", rng.choice(spellings), right)


def intervals(rng: random.Random, inequality: bool = False) -> Made:
    """Bounded, a ray or the union of both, answered by one or by an inequality; wrong by an end or a bracket."""
    under = rng.choice((1, 2, 3, 7))
    a, b, c = (Fraction(end, under) for end in sorted(rng.sample(range(-300, 300), 3)))
    closed, right = rng.random() < 0.5, rng.random() < 0.5
    (gold, _), (bracket, relation) = _end(a, closed), _end(a, closed)
    if not right:
        bracket, relation = _end(a, not closed) if rng.random() < 0.5 else _end(a - rng.randint(1, 9), closed)
    near, far = _spelled(b), _spelled(c)
    form = rng.randrange(3)
    if form == 0:
        spellings = [f"${bracket}, {near})$", rf"x \in {bracket}, {near})", rf"\left{bracket}, {near} \right)"]
        answer = f"{relation} x < {near}" if inequality else rng.choice(spellings)
        return Made(f"{gold}, {near})", answer, right)
    if form == 1:
        spellings = [rf"{bracket}, +\infty)", rf"x \in \left{bracket}, \infty \right)", f"{bracket}, ∞)"]
        return Made(rf"{gold}, \infty)", f"{relation} x" if inequality else rng.choice(spellings), right)
    answer = rf"({far}, \infty) \cup {bracket}, {near})"
    if inequality:
        answer = rf"{relation} x < {near} \text{{ or }} x > {far}"
    return Made(rf"{gold}, {near}) \cup ({far}, \infty)", answer, right)


Make = Callable[[random.Random], Made]
KINDS: dict[str, Make] = {"integers": integers, "fractions": fractions, "sets": sets, "intervals": intervals}
HARDER: dict[str, Make] = {
    "fractions times a root": roots,
    "sets with roots": partial(sets, factors=(1, 1, *_ROOTS)),
    "intervals answered by an inequality": partial(intervals, inequality=True),
}
"""no part of the mix: each such check is a piece of computer algebra"""


def mix(each: int, rounds: int, kinds: dict[str, Make] = KINDS, seed: int = 0) -> list[list[tuple[str, Made]]]:
    """Rounds of `each` pairs of every kind, shuffled, each with its kind.

    About half of the answers are right. No gold answer occurs twice in all rounds together, so that no cache of golds
    or of pairs helps, and no answer is its gold answer to the letter.
    """
    rng = random.Random(seed)
    found: list[list[tuple[str, Made]]] = [[] for _ in range(rounds)]
    for kind, make in kinds.items():
        pairs = _distinct(make, rng)
        for one in found:
            one += [(kind, made) for made in islice(pairs, each)]
    for one in found:
        rng.shuffle(one)
    return found


def speed() -> Speed:
    """Checks a second of two workers, started and warm, on fresh pairs each round; median of three rounds.

    The mix is a quarter each of integers, fractions, sets of three to five of them, and intervals and unions of two,
    in another spelling of the same notation. Roots, and inequalities for intervals, take many times as long: they are
    timed on their own, `HARDER`.
    """
    warming, *rounds, apart = mix(EACH, ROUNDS + 2)
    (harder,) = mix(FEW, 1, HARDER)
    speeds, unlike, by_kind = [], [], {}
    with GraderPool(workers=WORKERS) as checkers:
        _checked(checkers, warming[:WARMING])
        for pairs in rounds:
            seconds, wrong = _checked(checkers, pairs)
            speeds.append(len(pairs) / seconds)
            unlike += wrong
        for kind in (*KINDS, *HARDER):
            alone = [pair for pair in apart + harder if pair[0] == kind]
            seconds, wrong = _checked(checkers, alone)
            by_kind[kind] = len(alone) / seconds
            unlike += wrong
    quick = [quick_grade(made.gold, made.answer) is not None for pairs in rounds for _, made in pairs]
    return Speed(statistics.median(speeds), speeds, by_kind, statistics.mean(quick), len(rounds[0]), unlike)


@dataclass(frozen=True)
class Contained:
    """Hostile answers, each in the company of a harmless one that asks for the same workers."""

    seconds: dict[str, float]
    """wall time until both were judged, of each"""
    failed: list[str]
    """called right, over the limit of SECONDS + SLACK, run as code, or harmful to the answer beside it"""


def adversarial() -> Contained:
    """Each answer of the tests' table of hostile ones, with the limits that a user gets."""
    from tests.evaluation.test_grader_pool import (  # here: other topics run where its imports are not
        ADVERSARIAL,
        EXECUTED,
    )

    seconds: dict[str, float] = {}
    failed: list[str] = []
    ran = Path(EXECUTED)
    with GraderPool(workers=WORKERS) as checkers:
        checkers.check([("y", f"{n} y") for n in range(2, 50)])  # starts the workers
        for place, (name, answer) in enumerate(ADVERSARIAL.items(), start=2):
            start = time.perf_counter()
            verdict, beside = checkers.check([("7", answer), (f"x^{{{place}}} - 1", f"-1 + x^{{{place}}}")])
            seconds[name] = time.perf_counter() - start
            harmless = verdict in ("incorrect", "unparsable", "timeout") and beside == "correct" and not ran.exists()
            if not harmless or seconds[name] > SECONDS + SLACK:
                failed.append(name)
    return Contained(seconds, failed)


def champ_golds() -> tuple[int, list[str]]:
    """Gold answers of CHAMP that verify themselves, respaced so that equal texts do not settle it; and the others."""
    golds = [problem.answer or "" for problem in champ.load()]
    with GraderPool(workers=WORKERS) as checkers:
        verdicts = checkers.check([(gold, gold.replace(" ", "  ") + "\n.") for gold in golds])
    others = [gold for gold, verdict in zip(golds, verdicts, strict=True) if verdict != "correct"]
    return len(golds) - len(others), others


def labelled() -> tuple[int, list[str]]:
    """Completions labelled by hand, and a line for each that is judged otherwise, extraction and all."""
    table = [json.loads(line) for line in LABELLED.read_text("utf-8").splitlines()]
    cases = [(Problem(f"labelled/{place}", "", case["gold"]), case["text"]) for place, case in enumerate(table)]
    with GraderPool(workers=WORKERS) as checkers:
        judged = grade_completions(cases, checkers)
    misses = [
        f"{case['kind']}: gold {case['gold']}, {case['text']!r} is {case['verdict']}, judged {found.verdict}"
        for case, found in zip(table, judged, strict=True)
        if found.verdict != case["verdict"]
    ]
    return len(table), misses


def published() -> Iterator[tuple[str, float]]:
    """What is published, and in points how far the farther end of our interval is from it."""
    for what, (counts, ends) in PUBLISHED.items():
        found = wilson(*counts)
        yield what, max(abs(100 * found.low - ends[0]), abs(100 * found.high - ends[1]))


def _checked(checkers: GraderPool, pairs: list[tuple[str, Made]]) -> tuple[float, list[Made]]:
    """Seconds, and those whose verdict is not as they were made."""
    start = time.perf_counter()
    verdicts = checkers.check([(made.gold, made.answer) for _, made in pairs])
    seconds = time.perf_counter() - start
    expected = ["correct" if made.right else "incorrect" for _, made in pairs]
    return seconds, [made for (_, made), got, want in zip(pairs, verdicts, expected, strict=True) if got != want]


def _distinct(make: Make, rng: random.Random) -> Iterator[Made]:
    seen: set[str] = set()
    while True:
        made = make(rng)
        if made.gold not in seen and made.gold != made.answer:
            seen.add(made.gold)
            yield made


def _ratio(rng: random.Random) -> tuple[int, int]:
    """Over and under, in lowest terms; under is at least 2."""
    over, under = rng.randint(1, 999), rng.randint(2, 99)
    while gcd(over, under) > 1:
        over += 1
    return over, under


def _rational(rng: random.Random) -> Fraction:
    return Fraction(rng.choice((-1, 1)) * rng.randint(1, 200), rng.choice((1, 1, 2, 3, 7)))


def _spelled(value: Fraction, root: int = 1) -> str:
    text = str(value) if value.denominator == 1 else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    return text if root == 1 else rf"{text} \sqrt{{{root}}}"


def _end(value: Fraction, closed: bool) -> tuple[str, str]:
    """The left end of an interval, as one and as a relation."""
    text = _spelled(value)
    return ("[" if closed else "(") + text, rf"{text} \le" if closed else f"{text} <"
