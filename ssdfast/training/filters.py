"""Which traces are learnt from, and what leaving the others out did to the distribution.

Leaving out overlong traces shows a model only traces that finish, which alone teaches it to stop earlier: so nothing is
left out unless it is asked for, and every filter says what it took, by length, difficulty, end and correctness.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

from .examples import Example

_CORRECT = {True: "yes", False: "no", None: None}
OnTooLong = Literal["error", "drop", "truncate"]


def filtered(
    examples: Sequence[Example], limit: float, on_too_long: OnTooLong, correct_only: bool
) -> tuple[list[Example], dict[str, Any]]:
    """Those that are left, and the report, JSON.

    limit: tokens of prompt and completion. Truncation cuts the end of a completion, its end of text with it.
    Raises ValueError for an overlong trace that is neither to be dropped nor cut, naming it, for unknown correctness
    where only correct ones are wanted, and where none is left.
    """
    kept = list(examples)
    steps: list[dict[str, Any]] = []
    if correct_only:
        unknown = next((one for one in kept if one.trace.correct is None), None)
        if unknown:
            raise ValueError(
                f"{unknown.trace}: nobody says whether it is right: add the column correct (true or false)"
            )
        kept = _step("not correct", kept, lambda one: one if one.trace.correct else None, steps)
    if on_too_long == "error":
        long = next((one for one in kept if len(one) > limit), None)
        if long:
            raise ValueError(
                f"{long.trace} has {len(long):,} tokens, and {limit:,.0f} are allowed: --on-too-long drop or truncate"
            )
    elif on_too_long == "drop":
        kept = _step("too long", kept, lambda one: one if len(one) <= limit else None, steps)
    else:
        kept = _step("cut off at the limit", kept, lambda one: _cut(one, int(min(limit, len(one)))), steps)
    if not kept:
        raise ValueError(f"no trace is left of {len(examples):,}: {'; '.join(told({'filters': steps}))}")
    return kept, {"before": _shape(examples), "after": _shape(kept), "filters": steps}


def told(report: dict[str, Any]) -> list[str]:
    """A line for each filter that did anything."""
    return [
        f"{one['what']}: {one['traces']:,} traces removed, {one['changed']:,} cut, {one['tokens']:,} completion tokens"
        for one in report["filters"]
        if one["traces"] or one["changed"]
    ]


def _step(
    what: str, examples: list[Example], keep: Callable[[Example], Example | None], steps: list[dict[str, Any]]
) -> list[Example]:
    pairs = [(one, keep(one)) for one in examples]
    removed = [one for one, left in pairs if left is None]
    kept = [left for _, left in pairs if left is not None]
    tokens = sum(len(one.trace.completion_ids) for one in examples) - sum(len(one.trace.completion_ids) for one in kept)
    changed = sum(left is not None and left is not one for one, left in pairs)
    steps.append(
        {"what": what, "traces": len(removed), "changed": changed, "tokens": tokens, "removed": _shape(removed)}
    )
    return kept


def _cut(example: Example, limit: int) -> Example | None:
    """None where the prompt leaves no room for a completion token."""
    trace = example.trace
    room = limit - len(trace.prompt_ids)
    if room < 1:
        return None
    if room >= len(trace.completion_ids):
        return example
    ids_LK, logprobs_LK = example.top_ids_LK, example.top_logprobs_LK
    return dataclasses.replace(
        example,
        trace=dataclasses.replace(trace, completion_ids=trace.completion_ids[:room]),
        finish_reason="length",
        top_ids_LK=None if ids_LK is None else ids_LK[:room],
        top_logprobs_LK=None if logprobs_LK is None else logprobs_LK[:room],
    )


def _shape(examples: Sequence[Example]) -> dict[str, Any]:
    return shape(
        [len(one.trace.completion_ids) for one in examples],
        [one.finish_reason for one in examples],
        [one.difficulty for one in examples],
        [one.trace.correct for one in examples],
    )


def shape(
    lengths: Sequence[int],
    finish_reasons: Sequence[str | None],
    difficulties: Sequence[str | None],
    correct: Sequence[bool | None],
) -> dict[str, Any]:
    """Traces, tokens, and traces by length (powers of two of completion tokens), end, difficulty and correctness."""
    up_to = Counter(1 << max(0, length - 1).bit_length() for length in lengths)
    return {
        "traces": len(lengths),
        "completion_tokens": sum(lengths),
        "by_length_up_to": {str(length): up_to[length] for length in sorted(up_to)},
        "by_finish_reason": _counted(finish_reasons),
        "by_difficulty": _counted(difficulties),
        "by_correct": _counted(_CORRECT[one] for one in correct),
    }


def _counted(values: Any) -> dict[str, int]:
    return dict(sorted(Counter(value or "unknown" for value in values).items()))
