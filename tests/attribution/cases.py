"""Two hundred synthetic models with a known cause, in groups with a baseline and a control of their own.

A mixture's components are about as large as each other in KL, within a factor of e^±0.5 of the first.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from tests.as_json import attribute

from .synthetic import COMPONENTS, Baseline, Planted, baseline, write

GROUP = 10
_STRENGTHS = (0.15, 0.3, 0.5, 0.8, 1.0)
KINDS: dict[str, tuple[int, list[Planted]]] = {
    "ssd": (
        60,
        [
            *(Planted(strength=s) for s in _STRENGTHS),
            *(Planted(strength=s, spread=0.2) for s in _STRENGTHS[:3]),
            *(Planted(strength=s, tilted=True) for s in _STRENGTHS[:3]),
        ],
    ),
    "temperature": (30, [Planted(temperature=t) for t in (0.85, 0.93, 1.07, 1.2)]),
    "eos_bias": (25, [Planted(eos_bias=g) for g in (0.5, 1.0, 2.0, -1.0)]),
    "residual": (
        25,
        [
            Planted(residual=size, shared=shared, on_logits=on_logits)
            for size in (0.06, 0.1, 0.2)
            for shared in (0.0, 0.5)
            for on_logits in (False, True)
        ],
    ),
    "mixture": (
        40,
        [
            Planted(strength=0.4, residual=0.1),
            Planted(strength=0.3, temperature=0.9),
            Planted(strength=0.4, eos_bias=1.0),
            Planted(strength=0.3, residual=0.1, shared=0.0),
            Planted(strength=0.5, temperature=1.1),
            Planted(strength=0.3, temperature=0.9, eos_bias=1.0),
            Planted(strength=0.3, temperature=0.95, residual=0.1),
            Planted(strength=0.6, residual=0.1, on_logits=True),
        ],
    ),
    "none": (20, [Planted()]),
}
"""how many of each, and what they are in turn"""


@dataclass(frozen=True)
class Case:
    kind: str
    planted: Planted


@dataclass(frozen=True)
class Outcome:
    case: Case
    category: str
    ssd: float
    """fraction of the shift, as estimated"""
    planted_ssd: float
    text: str


def groups() -> list[list[Case]]:
    """All cases, GROUP together, so that every group has about the same kinds."""
    found = [Case(kind, one) for kind, (count, planted) in KINDS.items() for one in islice(cycle(planted), count)]
    cases = [Case(case.kind, replace(case.planted, seed=seed)) for seed, case in enumerate(found)]
    number = len(cases) // GROUP
    return [cases[start::number] for start in range(number)]


def classify(cases: list[Case], directory: Path, base: Baseline, seed: int) -> list[Outcome]:
    """The attribution of each, compared with one control."""
    rng = np.random.default_rng(seed)
    arms = {"control": [write(directory / "control", base, Planted(seed=100_000 + seed).logits(base))]}
    fractions = {}
    for place, case in enumerate(cases):
        planted = case.planted.scaled(base, rng) if case.kind == "mixture" else case.planted
        logits_NV = planted.logits(base)
        name = f"arm {place}"
        arms[name] = [write(directory / name, base, logits_NV)]
        fractions[name] = planted.fractions(base, logits_NV) if planted.present else dict.fromkeys(COMPONENTS, 0.0)
    found = attribute(arms, "control")["arms"]
    return [
        Outcome(
            case,
            found[name]["verdict"]["category"],
            found[name]["shift"]["components"]["ssd"]["fraction"]["value"],
            fractions[name]["ssd"],
            found[name]["verdict"]["text"],
        )
        for (name, case) in zip(fractions, cases, strict=True)
    ]


def confusion(outcomes: list[Outcome]) -> str:
    """A table of planted against named categories."""
    names = list(KINDS)
    counts = Counter((one.case.kind, one.category) for one in outcomes)
    lines = [f"| planted | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for kind in names:
        lines.append(f"| {kind} | {' | '.join(str(counts[kind, name] or '·') for name in names)} |")
    return "\n".join(lines)


def null_pair(directory: Path, seed: int) -> dict[str, Any]:
    """The attribution of an arm that differs from the control by independent noise alone."""
    base = baseline(traces=100, positions=4, seed=seed, vocabulary=512)
    arms = {
        name: [write(directory / name, base, Planted(seed=2 * seed + i).logits(base, 0.1))]
        for i, name in enumerate(("arm", "control"))
    }
    return attribute(arms, "control")["arms"]["arm"]
