"""Which traces a run trains on, and how filtering changes the distribution of traces.

Dropping traces that are too long shows the model only short ones, which alone teaches it to stop earlier. So nothing is
filtered by default, and every filter reports what it removed: by length, difficulty, finish reason and correctness.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from ..config import TrainingRunConfig
from ..models import LanguageModel, ModelInfo
from .examples import Example, map_top_logprobs, read_examples

_CORRECT = {True: "yes", False: "no", None: None}
OnTooLong = Literal["error", "drop", "truncate"]


def read_training_examples(
    config: TrainingRunConfig, model: LanguageModel | ModelInfo
) -> tuple[list[Example], dict[str, Any]]:
    """The traces that a run trains on, and the report of the filters. Raises ValueError if there are none."""
    with_top = config.loss == "soft" and config.soft_labels == "stored"
    examples_read = read_examples(Path(config.traces), model.vocabulary, model.tokenizer, with_top)
    examples = map_top_logprobs(examples_read) if with_top else list(examples_read)
    if not examples:
        raise ValueError(f"{config.traces} holds no completion tokens: there is nothing to train on")
    limit = min(config.max_length or model.context, model.context)
    return filter_examples(examples, limit, config.on_too_long, config.correct_only)


def filter_examples(
    examples: Sequence[Example], limit: float, on_too_long: OnTooLong, correct_only: bool
) -> tuple[list[Example], dict[str, Any]]:
    """The examples that pass the filters, and the report of the filters as JSON.

    limit: maximum length in tokens, prompt and completion. Truncation removes the end of a completion, and its end of
        text with it.
    Raises ValueError that names a trace, if it is too long and `on_too_long` is error, or if its correctness is unknown
    and `correct_only` is set; and ValueError if no example is left.
    """
    remaining = list(examples)
    steps: list[dict[str, Any]] = []
    if correct_only:
        unknown = next((example for example in remaining if example.trace.correct is None), None)
        if unknown:
            raise ValueError(
                f"{unknown.trace}: its correctness is unknown: add the column correct (true or false) for correct_only"
            )
        remaining = _apply("not correct", remaining, lambda example: example if example.trace.correct else None, steps)
    if on_too_long == "error":
        too_long = next((example for example in remaining if len(example) > limit), None)
        if too_long:
            raise ValueError(
                f"{too_long.trace} has {len(too_long):,} tokens, and {limit:,.0f} are allowed: --on-too-long drop or"
                " truncate"
            )
    elif on_too_long == "drop":
        remaining = _apply("too long", remaining, lambda example: example if len(example) <= limit else None, steps)
    else:
        remaining = _apply(
            "truncated", remaining, lambda example: _truncate(example, int(min(limit, len(example)))), steps
        )
    if not remaining:
        raise ValueError(f"no trace is left of {len(examples):,}: {'; '.join(format_filters({'filters': steps}))}")
    return remaining, {"before": _distribution(examples), "after": _distribution(remaining), "filters": steps}


def format_filters(report: dict[str, Any]) -> list[str]:
    """A line for each filter that removed or truncated anything."""
    return [
        f"{step['filter']}: {step['traces_removed']:,} traces removed, {step['traces_truncated']:,} truncated,"
        f" {step['completion_tokens_removed']:,} completion tokens removed"
        for step in report["filters"]
        if step["traces_removed"] or step["traces_truncated"]
    ]


def _apply(
    name: str,
    examples: list[Example],
    keep: Callable[[Example], Example | None],
    steps: list[dict[str, Any]],
) -> list[Example]:
    """The examples after a filter, which adds its report to `steps`."""
    pairs = [(before, keep(before)) for before in examples]
    removed = [before for before, after in pairs if after is None]
    remaining = [after for _, after in pairs if after is not None]
    steps.append(
        {
            "filter": name,
            "traces_removed": len(removed),
            "traces_truncated": sum(after is not None and after is not before for before, after in pairs),
            "completion_tokens_removed": _completion_tokens(examples) - _completion_tokens(remaining),
            "removed": _distribution(removed),
        }
    )
    return remaining


def _truncate(example: Example, limit: int) -> Example | None:
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


def _completion_tokens(examples: Iterable[Example]) -> int:
    return sum(len(example.trace.completion_ids) for example in examples)


def _distribution(examples: Sequence[Example]) -> dict[str, Any]:
    return trace_distribution(
        [len(example.trace.completion_ids) for example in examples],
        [example.finish_reason for example in examples],
        [example.difficulty for example in examples],
        [example.trace.correct for example in examples],
    )


def trace_distribution(
    lengths: Sequence[int],
    finish_reasons: Sequence[str | None],
    difficulties: Sequence[str | None],
    correct: Sequence[bool | None],
) -> dict[str, Any]:
    """Traces, tokens, and traces by length (powers of two of completion tokens), finish reason, difficulty and
    correctness."""
    up_to = Counter(1 << max(0, length - 1).bit_length() for length in lengths)
    return {
        "traces": len(lengths),
        "completion_tokens": sum(lengths),
        "by_length_up_to": {str(length): up_to[length] for length in sorted(up_to)},
        "by_finish_reason": _counts(finish_reasons),
        "by_difficulty": _counts(difficulties),
        "by_correct": _counts(_CORRECT[value] for value in correct),
    }


def _counts(values: Iterable[str | None]) -> dict[str, int]:
    return dict(sorted(Counter(value or "unknown" for value in values).items()))
