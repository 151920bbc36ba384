"""Which positions of a completion are scored, and which traces.

What is drawn at random depends on the seed and on the trace's own name, never on the order of the traces: the same
positions are drawn on any machine and after any interruption.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..config import PositionConfig

LENGTHS = ("shortest quarter", "second quarter", "third quarter", "longest quarter")


def select(completion_ids: np.ndarray, rules: PositionConfig, texts: Sequence[str], seed: int, key: str) -> np.ndarray:
    """The positions to score, int32, sorted, each once: indices into the completion; none where there is no landmark.

    completion_ids: integers [N]. texts: of each vocabulary entry, so that those of a sequence make up its text.
    seed, key: what a random choice depends on, and nothing else does.
    """
    count = len(completion_ids)
    if rules.select == "every":
        return np.arange(0, count, rules.every, dtype=np.int32)
    if rules.select == "random":
        drawn = _generator(seed, key).permutation(count)[: rules.count]
        return np.sort(drawn).astype(np.int32)
    if rules.select == "landmarks":
        return _around(_landmarks(completion_ids, rules.landmarks, texts), rules.around, count)
    return np.arange(count, dtype=np.int32)


def _landmarks(completion_ids: np.ndarray, landmarks: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    r"""The tokens in which landmarks begin; one may be spread over several tokens, as ``\``, ``boxed`` and ``{``."""
    pieces = [texts[token_id] for token_id in completion_ids.tolist()]
    text = "".join(pieces)
    begins = [at for landmark in landmarks for at in _occurrences(landmark, text)]
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    return np.unique(np.searchsorted(ends, begins, side="right"))


def _occurrences(landmark: str, text: str) -> Iterator[int]:
    """Where it begins. One that begins with a letter is a word: no letter before it, nor after it if it ends in one."""
    word = landmark[0].isalpha()
    at = text.find(landmark)
    while at >= 0:
        end = at + len(landmark)
        goes_on = text[end : end + 1].isalpha() and landmark[-1].isalpha()
        if not (word and (text[max(at - 1, 0) : at].isalpha() or goes_on)):
            yield at
        at = text.find(landmark, at + 1)


def _around(centres: np.ndarray, reach: int, count: int) -> np.ndarray:
    """Every position at most `reach` from a centre, by the windows that open and close at it: no matter how long."""
    open_N = np.bincount(np.maximum(centres - reach, 0), minlength=count + 1)
    close_N = np.bincount(np.minimum(centres + reach + 1, count), minlength=count + 1)
    return np.flatnonzero(np.cumsum(open_N - close_N)).astype(np.int32)


class Described(NamedTuple):
    """What decides whether a trace is drawn as a carrier."""

    label: str
    """who generated it"""
    tokens: int
    correct: bool | None
    key: str
    """its own, unlike that of any other"""


def carriers(traces: Sequence[Described], count: int, seed: int) -> np.ndarray:
    """The indices, sorted, of `count` traces drawn in equal shares of all strata; all where there are no more.

    A stratum is a quarter by length (of all traces; equal lengths stay together), times right, wrong or unknown, times
    the generator. Strata too small for an equal share are taken whole, and what they leave is shared by the others:
    their shares differ by one at most. Within a stratum, and for the odd ones out, chance decides, from the seed and
    the traces' keys. The order of the traces does not matter.
    """
    found = _strata(traces)
    order = _generator(seed, "strata").permutation(len(found))
    queues = [found[name] for name in sorted(found, key=str)]
    queues = [sorted(queues[i], key=lambda index: _chance(seed, traces[index].key)) for i in order]
    turns = (queue[turn] for turn in range(max(map(len, queues), default=0)) for queue in queues if turn < len(queue))
    return np.array(sorted(index for index, _ in zip(turns, range(count), strict=False)), np.int64)


def strata(traces: Sequence[Described], chosen: np.ndarray) -> list[dict[str, Any]]:
    """Each stratum with how many traces it holds and how many of them were chosen."""
    taken = set(chosen.tolist())
    return [
        {
            "length": LENGTHS[quarter],
            "correct": correct,
            "label": label,
            "traces": len(indices),
            "chosen": len(taken.intersection(indices)),
        }
        for (quarter, correct, label), indices in sorted(_strata(traces).items(), key=lambda found: str(found[0]))
    ]


def _strata(traces: Sequence[Described]) -> dict[tuple[int, bool | None, str], list[int]]:
    tokens = np.array([trace.tokens for trace in traces])
    quarters = np.searchsorted(np.quantile(tokens, [0.25, 0.5, 0.75]), tokens) if len(tokens) else tokens
    found: dict[tuple[int, bool | None, str], list[int]] = {}
    for index, (trace, quarter) in enumerate(zip(traces, quarters.tolist(), strict=True)):
        found.setdefault((quarter, trace.correct, trace.label), []).append(index)
    return found


def _chance(seed: int, key: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=16).digest()


def _generator(seed: int, key: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(_chance(seed, key), "big"))
