"""Traces against the model that reads them: the same checks of token ids and texts in every stage."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .traces import Trace, rows

_TEXTS = 8
_log = logging.getLogger(__name__)


def check_ids(trace: Trace, vocabulary: int) -> None:
    """Raises ValueError that names file, trace, position and id where an id is not in 0..vocabulary-1."""
    for where, ids in (("prompt", trace.prompt_ids), ("completion", trace.completion_ids)):
        outside = np.flatnonzero((ids < 0) | (ids >= vocabulary))
        if outside.size:
            position = int(outside[0])
            raise ValueError(
                f"{trace}: {where} position {position} holds token id {ids[position]}, outside the models' vocabulary"
                f" of {vocabulary}: use traces made with the models' tokenizer"
            )


def check_texts(path: Path, decode: Callable[[list[int]], str], vocabulary: int) -> None:
    """Raises ValueError where no text of the first traces matches their ids as `decode` decodes them.

    Ids of a different tokenizer are often valid ids of this one. A text may omit control tokens around it.
    """
    with_text = ((trace, columns["text"].as_py()) for trace, columns in rows(path, ("text",)) if "text" in columns)
    texts = [(trace, text.strip()) for trace, text in islice(with_text, _TEXTS) if text and text.strip()]
    for trace, _ in texts:
        check_ids(trace, vocabulary)
    decoded = [decode(trace.completion_ids.tolist()) for trace, _ in texts]
    if texts and not any(text in of_ids for (_, text), of_ids in zip(texts, decoded, strict=True)):
        raise ValueError(
            f"{texts[0][0]}: its text is {texts[0][1][:40]!r}, but this model's tokenizer decodes its token ids as"
            f" {decoded[0][:40]!r}: use traces made with the model's tokenizer, or remove the column text"
        )


def rows_for_model(
    path: Path, optional: Sequence[str], vocabulary: int, tokenizer: Any
) -> Iterator[tuple[Trace, dict[str, pa.Scalar]]]:
    """`rows`, checked against a model that reads them: its rows of lm_head and its tokenizer.

    Raises ValueError for traces made with a different tokenizer, and warns of ids that no token has and of traces that
    failed.
    """
    check_texts(path, tokenizer.decode, vocabulary)
    padding, failed = PaddingIds(tokenizer), Counter[str]()
    for trace, columns in rows(path, optional, failed):
        check_ids(trace, vocabulary)
        padding.add(trace.completion_ids)
        yield trace, columns
    padding.warn(str(path))
    if failed:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(failed.items()))
        _log.warning("%s: traces that failed are left out (%s): the same sampling tries them again", path, reasons)


class PaddingIds:
    """Counts the ids of completions that no token of a tokenizer has: an embedding can have more rows than tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokens = max(tokenizer.get_vocab().values(), default=-1) + 1
        self.ids = self.total = 0

    def add(self, completion_ids: Sequence[int] | np.ndarray) -> None:
        self.ids += int((np.asarray(completion_ids) >= self.tokens).sum())
        self.total += len(completion_ids)

    def warn(self, source: str) -> None:
        """Warn unless every id has a token."""
        if self.ids:
            _log.warning(
                "%s: %s of %s token ids of the completions have no token, for the tokenizer ends at id %s: check that"
                " model and tokenizer belong together",
                source,
                f"{self.ids:,}",
                f"{self.total:,}",
                f"{self.tokens - 1:,}",
            )
