"""Duplicate problems: equal texts, and near duplicates by the Jaccard similarity of word 3-grams.

Texts with different numbers are different problems, however similar their words are. The
search is exact. Texts of similarity t share one of the rarest 1 - t of their grams (prefix filtering: Chaudhuri et al.
2006, Bayardo et al. 2007), so an index of those gives all candidates; bit signatures of their grams rule out most of
them before sets are compared.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

_LATEX_SPACE = re.compile(r"(?<!\\)\\(?:[,;:!> ]|(?:quad|qquad|thinspace|medspace|thickspace|enspace)\b)|~")
_WORD = re.compile(r"\\[a-z]+|\d+|[^\W\d_]+|[^\s\w]|_")
_SPELT = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_DIGITS = {word: str(number) for number, word in enumerate(_SPELT, 2)}  # "one" is a pronoun too often
_GRAM = 3
_BITS = 512
_SLACK = 1e-9  # for products of floats

Pair = tuple[int, int, float]


def normalise(text: str) -> str:
    """`text` without whitespace, case, and LaTeX's spacing commands, which do not distinguish problems.

    Words, numbers and single symbols remain, with a space between them.
    """
    return " ".join(_words(text))


def near_duplicates(texts: Sequence[str], threshold: float) -> list[Pair]:
    """(earlier, later, similarity) for each text that repeats an earlier one; positions in `texts`, rising `later`.

    The earlier one is the first of similarity >= `threshold` that repeats none itself. Similarity is the Jaccard
    similarity of the sets of word 3-grams where both texts hold the same numbers equally often, else 0; a text of
    fewer than three words is one gram. A threshold of 1 requires texts that are equal after `normalise`. Raises
    ValueError for a threshold outside 0 < t <= 1.
    """
    index = _Index(threshold)
    pairs = []
    for later, grams in enumerate(_grams(texts, threshold)):
        match = next(index.similar(grams), None)
        if match is None:
            index.add(later, grams)
        else:
            pairs.append((match[0], later, match[1]))
    return pairs


def near_duplicates_between(texts: Sequence[str], others: Sequence[str], threshold: float) -> list[Pair]:
    """(position in `texts`, position in `others`, similarity) for all pairs as similar as `near_duplicates` asks."""
    index = _Index(threshold)
    grams = _grams([*texts, *others], threshold)
    for position, other_grams in enumerate(grams[len(texts) :]):
        index.add(position, other_grams)
    return [(i, j, similarity) for i in range(len(texts)) for j, similarity in index.similar(grams[i])]


class _Index:
    """Texts by the rarest of their grams, as many as are needed to find every similar text."""

    def __init__(self, threshold: float) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(
                f"problems.near_duplicate_threshold must be in (0, 1], not {threshold}: use 1 to skip equal texts only"
            )
        self.threshold = threshold
        self.positions_of: defaultdict[int, list[int]] = defaultdict(list)
        self.texts: dict[int, tuple[frozenset[int], int]] = {}

    def add(self, position: int, grams: list[int]) -> None:
        self.texts[position] = frozenset(grams), _signature(grams)
        for gram in self._prefix(grams):
            self.positions_of[gram].append(position)

    def similar(self, grams: list[int]) -> Iterator[tuple[int, float]]:
        """Positions in rising order, with their similarity."""
        candidates = {position for gram in self._prefix(grams) for position in self.positions_of.get(gram, ())}
        own, signature = frozenset(grams), _signature(grams)
        # A similarity of t leaves (1 - t) / (1 + t) of the two lengths for the grams of one text alone.
        apart = (1 - self.threshold) / (1 + self.threshold)
        for position in sorted(candidates):
            other, other_signature = self.texts[position]
            if (signature ^ other_signature).bit_count() > apart * (len(own) + len(other)) + _SLACK:
                continue
            common = len(own & other)
            similarity = common / (len(own) + len(other) - common)
            if similarity >= self.threshold:
                yield position, similarity

    def _prefix(self, grams: list[int]) -> list[int]:
        return grams[: len(grams) - math.ceil(self.threshold * len(grams) - _SLACK) + 1]


def _signature(grams: list[int]) -> int:
    """A bit string; two of them differ in at most as many bits as there are grams in one text alone."""
    signature = 0
    for gram in grams:
        signature ^= 1 << gram % _BITS
    return signature


def _grams(texts: Sequence[str], threshold: float) -> list[list[int]]:
    """The set of grams of each text, as integers, the rarest gram first.

    A gram goes with the numbers of the whole text, so that texts with other numbers have none in common.
    """
    if threshold == 1 or not texts:
        whole: dict[str, int] = {}
        return [[whole.setdefault(normalise(text), len(whole))] for text in texts]
    ids: dict[str, int] = {"": 0}  # fills up texts of fewer than three words
    groups: dict[tuple[str, ...], int] = {}
    words_T, group_N, length_N = [], [], []
    for text in texts:
        words = _words(text)
        group_N.append(groups.setdefault(_numbers(words), len(groups)))
        words += [""] * (_GRAM - len(words))
        length_N.append(len(words))
        words_T += [ids.setdefault(word, len(ids)) for word in words]
    text_T = np.repeat(np.arange(len(texts)), length_N)
    group_T = np.repeat(group_N, length_N)
    word_T = np.array(words_T)
    gram_T = _pair_ids(_pair_ids(group_T, word_T)[:-2], word_T[1:-1])
    gram_T = _pair_ids(gram_T, word_T[2:])
    inside_T = text_T[:-2] == text_T[2:]
    grams = int(gram_T.max()) + 1
    text_G, gram_G = np.divmod(np.unique(text_T[:-2][inside_T] * grams + gram_T[inside_T]), grams)
    rank = np.argsort(np.argsort(np.bincount(gram_G, minlength=grams), kind="stable"))
    rank_G = rank[gram_G]
    order = np.lexsort((rank_G, text_G))
    ends = np.cumsum(np.bincount(text_G, minlength=len(texts)))
    return [group.tolist() for group in np.split(rank_G[order], ends[:-1])]


def _pair_ids(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """An integer for each pair, the same for the same pair."""
    return np.unique(left * (int(right.max()) + 1) + right, return_inverse=True)[1]


def _words(text: str) -> list[str]:
    return _WORD.findall(_LATEX_SPACE.sub(" ", text).lower())


def _numbers(words: list[str]) -> tuple[str, ...]:
    """The numbers among `words`, in digits or in letters, sorted."""
    return tuple(sorted(_DIGITS.get(word, word) for word in words if word in _DIGITS or word.isdecimal()))
