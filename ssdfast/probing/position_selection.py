"""Which positions of a completion are scored, and which traces.

Random choices depend on the seed and on the trace's own name, never on the order of the traces: the same positions are
selected on any machine and after any interruption.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..config import PositionConfig

LENGTHS = ("shortest quarter", "second quarter", "third quarter", "longest quarter")


def select_positions(
    completion_ids: np.ndarray, config: PositionConfig, texts: Sequence[str], seed: int, key: str
) -> np.ndarray:
    """The positions to score, int32, sorted, each once: indices into the completion; none where there is no landmark.

    completion_ids: integers [N]. texts: of each vocabulary entry; those of a sequence make up its text.
    seed, key: all that a random choice depends on.
    """
    count = len(completion_ids)
    if config.select == "stride":
        return np.arange(0, count, config.stride, dtype=np.int32)
    if config.select == "random":
        sample = _generator(seed, key).permutation(count)[: config.per_trace]
        return np.sort(sample).astype(np.int32)
    if config.select == "landmarks":
        return _windows(_landmarks(completion_ids, config.landmarks, texts), config.window, count)
    return np.arange(count, dtype=np.int32)


def _landmarks(completion_ids: np.ndarray, landmarks: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    r"""The tokens in which landmarks begin. A landmark may span several tokens, as ``\``, ``boxed`` and ``{``."""
    pieces = [texts[token_id] for token_id in completion_ids.tolist()]
    text = "".join(pieces)
    begins = [start for landmark in landmarks for start in _occurrences(landmark, text)]
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    return np.unique(np.searchsorted(ends, begins, side="right"))


def _occurrences(landmark: str, text: str) -> Iterator[int]:
    """Where it begins. A landmark that begins with a letter is a word: no letter precedes it, nor follows it if it ends
    in one."""
    word = landmark[0].isalpha()
    start = text.find(landmark)
    while start >= 0:
        end = start + len(landmark)
        continues = text[end : end + 1].isalpha() and landmark[-1].isalpha()
        if not (word and (text[max(start - 1, 0) : start].isalpha() or continues)):
            yield start
        start = text.find(landmark, start + 1)


def _windows(centres: np.ndarray, window: int, count: int) -> np.ndarray:
    """Every position at most `window` from a centre. The cost does not depend on the window's width."""
    open_N = np.bincount(np.maximum(centres - window, 0), minlength=count + 1)
    close_N = np.bincount(np.minimum(centres + window + 1, count), minlength=count + 1)
    return np.flatnonzero(np.cumsum(open_N - close_N)).astype(np.int32)


class Candidate(NamedTuple):
    """A trace that can be selected, by what decides about it."""

    trace_source: str
    tokens: int
    correct: bool | None
    key: str
    """unique to the trace"""


def select_traces(candidates: Sequence[Candidate], count: int, seed: int) -> np.ndarray:
    """The indices, sorted, of `count` traces sampled evenly from all strata; all where there are no more.

    A stratum is a quarter by length (of all traces; equal lengths stay together), times correct, incorrect or unknown,
    times the source. Strata too small for an equal number are taken whole; the numbers of the others
    differ by at most one. Within a stratum, and for the remainder, chance decides, from the seed and the traces' keys.
    The order of the traces does not matter.
    """
    strata = _strata(candidates)
    order = _generator(seed, "strata").permutation(len(strata))
    queues = [strata[name] for name in sorted(strata, key=str)]
    queues = [sorted(queues[i], key=lambda index: _chance(seed, candidates[index].key)) for i in order]
    turns = (queue[turn] for turn in range(max(map(len, queues), default=0)) for queue in queues if turn < len(queue))
    return np.array(sorted(index for index, _ in zip(turns, range(count), strict=False)), np.int64)


def strata_counts(candidates: Sequence[Candidate], selected: np.ndarray) -> list[dict[str, Any]]:
    """Each stratum with the number of its traces and how many of them are selected."""
    selection = set(selected.tolist())
    return [
        {
            "length": LENGTHS[quarter],
            "correct": correct,
            "trace_source": trace_source,
            "traces": len(indices),
            "selected": len(selection.intersection(indices)),
        }
        for (quarter, correct, trace_source), indices in sorted(
            _strata(candidates).items(), key=lambda stratum: str(stratum[0])
        )
    ]


def _strata(candidates: Sequence[Candidate]) -> dict[tuple[int, bool | None, str], list[int]]:
    tokens = np.array([candidate.tokens for candidate in candidates])
    quarters = np.searchsorted(np.quantile(tokens, [0.25, 0.5, 0.75]), tokens) if len(tokens) else tokens
    strata: dict[tuple[int, bool | None, str], list[int]] = {}
    for index, (candidate, quarter) in enumerate(zip(candidates, quarters.tolist(), strict=True)):
        strata.setdefault((quarter, candidate.correct, candidate.trace_source), []).append(index)
    return strata


def _chance(seed: int, key: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=16).digest()


def _generator(seed: int, key: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(_chance(seed, key), "big"))
