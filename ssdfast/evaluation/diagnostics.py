"""What a completion is like besides right or wrong: did it think to an end, state an answer, stop, go in circles?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..loop_detection import LoopDetector, LoopRule
from .completions import Completion
from .extract import ExtractionRules, stated

# The rule that ends loops in sampling; evaluation lets them run to their end, and counts them.
LOOP = LoopRule()
REPEATED = 4
"""tokens of the n-grams that repetition is measured by"""


@dataclass(frozen=True)
class Health:
    """Of one completion."""

    extracted: str | None
    """the answer as it is worded, None where it states none"""
    boxed: bool
    """a box holds it"""
    thinks: bool
    """a thinking part is opened, by the completion or the prompt"""
    closed: bool
    """and closed"""
    length: int
    """tokens; words where nobody says how many tokens"""
    in_tokens: bool
    looped: bool
    """at some place it repeats one period again and again (`loops.LoopRule`)"""
    repetition: float
    """1 - distinct 4-grams / 4-grams (Welleck et al. 2020, arXiv 1908.04319); of tokens, or of words in mere text"""


def examine(completion: Completion, rules: ExtractionRules) -> Health:
    text = completion.text
    symbols = completion.ids if completion.ids is not None else _words(text)
    extracted, boxed = stated(text, rules)
    return Health(
        extracted=extracted,
        boxed=boxed,
        thinks=rules.starts_thinking or rules.open_tag in text or rules.close_tag in text,
        closed=rules.close_tag in text,
        length=len(symbols) if completion.tokens is None else completion.tokens,
        in_tokens=completion.tokens is not None,
        looped=LoopDetector(LOOP).feed(symbols.tolist()),
        repetition=repetition(symbols),
    )


def closes_unopened(text: str, rules: ExtractionRules) -> bool:
    """Whether a completion closes a thinking part that it did not open: the prompt did."""
    return rules.close_tag in text and rules.open_tag not in text.partition(rules.close_tag)[0]


def prompt_opens(text: str, rules: ExtractionRules) -> bool:
    """Whether a prompt ends inside a thinking part."""
    return text.rfind(rules.open_tag) > text.rfind(rules.close_tag)


def repetition(symbols: np.ndarray) -> float:
    """Share of the n-grams that stand there already; 0 for fewer than two of them."""
    if len(symbols) <= REPEATED:
        return 0.0
    grams_NR = np.ascontiguousarray(sliding_window_view(symbols.astype(np.int64), REPEATED))
    as_bytes = grams_NR.view(np.dtype((np.void, grams_NR.dtype.itemsize * REPEATED)))
    return 1.0 - len(np.unique(as_bytes)) / len(grams_NR)


def _words(text: str) -> np.ndarray:
    """Each word as a number, the same for the same word."""
    ids: dict[str, int] = {}
    return np.array([ids.setdefault(word, len(ids)) for word in text.split()], np.int64)


def lengths(length_N: np.ndarray) -> dict[str, float]:
    """Mean, quantiles and longest."""
    shares = (0.05, 0.25, 0.5, 0.75, 0.95)
    quantiles = np.quantile(length_N, shares)
    named = {f"p{100 * share:.0f}": float(value) for share, value in zip(shares, quantiles, strict=True)}
    return {"mean": float(np.mean(length_N)), **named, "longest": float(np.max(length_N))}


def share(flags: Sequence[bool] | np.ndarray) -> float | None:
    return float(np.mean(flags)) if len(flags) else None
