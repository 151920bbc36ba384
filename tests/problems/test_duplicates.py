"""Near duplicates: every pair that the definition names, and no other."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ssdfast.problems.duplicates import near_duplicates, near_duplicates_between, normalise

# Few words and numbers, so that random texts are often alike.
TEXTS = st.lists(
    st.lists(st.sampled_from(["a", "b", "c", "d", "2", "3"]), max_size=9).map(" ".join), min_size=1, max_size=14
)
# A long text and what a few edits make of it: similarities between a half and one.
EDITED = st.lists(
    st.lists(st.tuples(st.integers(0, 29), st.sampled_from(["x", "y", "2"])), max_size=3), min_size=2, max_size=8
).map(lambda edits: [_edited(some) for some in edits])
THRESHOLDS = st.sampled_from([0.05, 0.3, 0.5, 2 / 3, 0.75, 0.8, 0.9, 0.999, 1.0])


def _edited(edits: list[tuple[int, str]]) -> str:
    words = [f"w{chr(97 + i)}" for i in range(26)] + ["one", "two", "3", "7"]
    for position, word in edits:
        words[position] = word
    return " ".join(words)


def similarity(a: str, b: str, threshold: float) -> float:
    """The definition, word by word."""
    words, others = normalise(a).split(), normalise(b).split()
    if threshold == 1:
        return float(words == others)
    spelt = {"two": "2", "three": "3"}
    numbers = [sorted(spelt.get(w, w) for w in text if w.isdigit() or w in spelt) for text in (words, others)]
    if numbers[0] != numbers[1]:
        return 0.0
    grams = [{tuple(text[i : i + 3]) for i in range(max(1, len(text) - 2))} for text in (words, others)]
    return len(grams[0] & grams[1]) / len(grams[0] | grams[1])


@settings(deadline=None, max_examples=300)
@given(st.one_of(TEXTS, EDITED), THRESHOLDS)
@example(["a a a", "a a a a"], 0.8)  # the same set of grams, not the same text
@example(["", "a", "a b", "a  B"], 0.8)
def test_finds_what_the_definition_names(texts: list[str], threshold: float) -> None:
    kept: list[int] = []
    expected = []
    for later, text in enumerate(texts):
        for earlier in kept:
            if (found := similarity(texts[earlier], text, threshold)) >= threshold:
                expected.append((earlier, later, found))
                break
        else:
            kept.append(later)
    assert near_duplicates(texts, threshold) == expected


@settings(deadline=None, max_examples=300)
@given(st.one_of(TEXTS, EDITED), st.one_of(TEXTS, EDITED), THRESHOLDS)
def test_between_two_lists_all_pairs_are_found(texts: list[str], others: list[str], threshold: float) -> None:
    expected = [
        (i, j, found)
        for i, text in enumerate(texts)
        for j, other in enumerate(others)
        if (found := similarity(text, other, threshold)) >= threshold
    ]
    assert near_duplicates_between(texts, others, threshold) == expected


def test_numbers_tell_problems_apart() -> None:
    asked = "A train leaves the station at {} in the morning and travels for {} hours before it stops: how far?"
    assert near_duplicates([asked.format(8, "three"), asked.format(9, "three"), asked.format(8, "four")], 0.5) == []
    (pair,) = near_duplicates([asked.format(8, "three"), asked.format(8, "3")], 0.5)
    assert pair[:2] == (0, 1)


def test_whitespace_case_and_latex_spacing_do_not() -> None:
    same = ["Find $x+1$\\, if\nX = 2.", "find  $x + 1$ if x=2 .", "Find $x\\;+\\quad 1$ if~x = 2."]
    assert near_duplicates(same, 1.0) == [(0, 1, 1.0), (0, 2, 1.0)]
    assert normalise(r"a \\, b") == r"a \ \ , b"  # a line break and a comma
    assert normalise("12 3") != normalise("1 23")


def test_no_texts() -> None:
    assert near_duplicates([], 0.8) == []
    assert near_duplicates_between([], ["a"], 0.8) == near_duplicates_between(["a"], [], 0.8) == []


@pytest.mark.parametrize("threshold", [0.0, -0.5, 1.5, float("nan")])
def test_a_threshold_that_means_nothing_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="near_duplicate_threshold must be in"):
        near_duplicates(["a"], threshold)
