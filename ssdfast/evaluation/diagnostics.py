"""Properties of a completion besides its grade: whether it thinks to an end, states an answer, stops or loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..loop_detection import LoopDetector, LoopRule
from .completions import Completion
from .extract import ExtractionRules, extract_with_box

# The rule that stops loops in sampling; evaluation lets them run to their end, and counts them.
LOOP = LoopRule()
NGRAM = 4
"""The number of tokens in the n-grams that measure repetition."""


@dataclass(frozen=True)
class Diagnostics:
    """Properties of one completion."""

    answer: str | None
    """The answer as the completion words it, None where it states none."""
    boxed: bool
    """The answer is from a box."""
    thinking: bool
    """The completion or the prompt opens a thinking part."""
    think_closed: bool
    """The completion closes the thinking part."""
    length: int
    """The length in tokens, or in words where the number of tokens is unknown."""
    length_in_tokens: bool
    looped: bool
    """Somewhere the completion repeats one period again and again (`loop_detection.LoopRule`)."""
    repetition: float
    """1 - distinct 4-grams / 4-grams (Welleck et al. 2020, arXiv 1908.04319), of tokens or else of words."""


def examine(completion: Completion, rules: ExtractionRules) -> Diagnostics:
    text = completion.text
    symbols = completion.ids if completion.ids is not None else _words(text)
    answer, boxed = extract_with_box(text, rules)
    return Diagnostics(
        answer=answer,
        boxed=boxed,
        thinking=rules.prompt_opens_thinking or rules.think_start in text or rules.think_end in text,
        think_closed=rules.think_end in text,
        length=len(symbols) if completion.tokens is None else completion.tokens,
        length_in_tokens=completion.tokens is not None,
        looped=LoopDetector(LOOP).feed(symbols.tolist()),
        repetition=repetition(symbols),
    )


def closes_unopened(text: str, rules: ExtractionRules) -> bool:
    """Whether a completion closes a thinking part that it did not open: the prompt did."""
    return rules.think_end in text and rules.think_start not in text.partition(rules.think_end)[0]


def prompt_opens(text: str, rules: ExtractionRules) -> bool:
    """Whether a prompt ends inside a thinking part."""
    return text.rfind(rules.think_start) > text.rfind(rules.think_end)


def repetition(symbols: np.ndarray) -> float:
    """The fraction of the n-grams that occur earlier in the text; 0 for fewer than two n-grams."""
    if len(symbols) <= NGRAM:
        return 0.0
    grams_NR = np.ascontiguousarray(sliding_window_view(symbols.astype(np.int64), NGRAM))
    as_bytes = grams_NR.view(np.dtype((np.void, grams_NR.dtype.itemsize * NGRAM)))
    return 1.0 - len(np.unique(as_bytes)) / len(grams_NR)


def _words(text: str) -> np.ndarray:
    """Each word as a number, the same number for the same word."""
    ids: dict[str, int] = {}
    return np.array([ids.setdefault(word, len(ids)) for word in text.split()], np.int64)


def length_summary(length_N: np.ndarray) -> dict[str, float]:
    """Mean, quantiles and maximum."""
    levels = (0.05, 0.25, 0.5, 0.75, 0.95)
    quantiles = np.quantile(length_N, levels)
    named = {f"p{100 * level:.0f}": float(value) for level, value in zip(levels, quantiles, strict=True)}
    return {"mean": float(np.mean(length_N)), **named, "max": float(np.max(length_N))}


def fraction(flags: Sequence[bool] | np.ndarray) -> float | None:
    """The fraction of true flags, None for no flags."""
    return float(np.mean(flags)) if len(flags) else None
