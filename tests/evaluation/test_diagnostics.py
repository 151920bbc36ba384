"""What a completion is like is counted as it is defined, in tokens or in words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdfast.evaluation.completions import Completion
from ssdfast.evaluation.diagnostics import (
    LOOP,
    NGRAM,
    closes_unopened,
    examine,
    fraction,
    length_summary,
    prompt_opens,
    repetition,
)
from ssdfast.evaluation.extract import ExtractionRules
from ssdfast.evaluation.runs import KnownSamplingParams

RULES = ExtractionRules()
OPENED = ExtractionRules(prompt_opens_thinking=True)
PROSE = " ".join(f"step {n} takes {n * n} from {3 * n + 1} and leaves it" for n in range(200))


def completion(text="", ids=None, tokens=None):
    ids = None if ids is None else np.asarray(ids, np.int32)
    return Completion("p", 0, text, ids, tokens, "stop", KnownSamplingParams(), "", "here", None)


def brute_force(symbols):
    """1 - distinct n-grams / n-grams, from its words."""
    grams = [tuple(symbols[at : at + NGRAM]) for at in range(len(symbols) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), max_size=40), st.sampled_from((np.int32, np.int64)))
def test_repetition_is_the_share_of_grams_that_stand_there_already(symbols, dtype):
    assert repetition(np.array(symbols, dtype)) == pytest.approx(brute_force(symbols))


def test_repetition_by_hand():
    assert repetition(np.array([5, 6, 7, 8])) == 0
    assert repetition(np.array([5, 5, 5, 5, 5])) == 0.5  # two grams, one of them distinct
    assert repetition(np.full(103, 9)) == pytest.approx(0.99)
    assert repetition(np.arange(1000)) == 0


@settings(deadline=None)
@given(st.lists(st.sampled_from("ab\n "), max_size=60).map("".join))
def test_the_words_of_a_text_are_its_symbols_where_there_are_no_ids(text):
    words = text.split()
    found = examine(completion(text), RULES)
    assert (found.length, found.length_in_tokens) == (len(words), False)
    assert found.repetition == pytest.approx(brute_force(words))


def test_ids_go_before_words():
    looping, varied = " ".join(["again"] * 500), np.arange(500)
    found = examine(completion(looping, varied, 500), RULES)
    assert (found.looped, found.repetition) == (False, 0)
    assert examine(completion(PROSE, varied % 7, 500), RULES).looped


def test_lengths_are_tokens_where_somebody_counted_them():
    found = examine(completion("three little words", tokens=17), RULES)
    assert (found.length, found.length_in_tokens) == (17, True)
    assert examine(completion("", tokens=0), RULES).length == 0
    assert examine(completion("", np.zeros(0), 0), RULES).repetition == 0


@pytest.mark.parametrize("period", [1, 5, 40])
def test_a_loop_is_seen_in_ids_and_in_words(period):
    long = max(LOOP.min_tokens, LOOP.min_repeats * period) + 4
    ids = [*range(1000, 1100), *(at % period for at in range(long)), *range(2000, 2100)]
    assert examine(completion("", ids, len(ids)), RULES).looped
    assert examine(completion(" ".join(map(str, ids))), RULES).looped
    short = [*ids[:100], *(at % period for at in range(LOOP.min_tokens // 2)), *ids[-100:]]
    assert not examine(completion("", short, len(short)), RULES).looped


def test_ordinary_text_is_no_loop():
    found = examine(completion(PROSE), RULES)
    assert not found.looped
    assert 0 < found.repetition < 0.2  # "takes" and "from" return, what they stand between does not


@pytest.mark.parametrize(
    ("text", "rules", "thinking", "closed"),
    [
        ("2", RULES, False, False),
        ("<think>hm</think>2", RULES, True, True),
        ("<think>hm", RULES, True, False),
        ("hm</think>2", RULES, True, True),
        ("hm</think>2", OPENED, True, True),
        ("hm", OPENED, True, False),
        ("<think>hm</think>2", ExtractionRules(think_start="<r>", think_end="</r>"), False, False),
        ("<r>hm</r>2", ExtractionRules(think_start="<r>", think_end="</r>"), True, True),
    ],
)
def test_thinking_is_opened_by_text_or_prompt_and_closed_by_text(text, rules, thinking, closed):
    found = examine(completion(text), rules)
    assert (found.thinking, found.think_closed) == (thinking, closed)


@pytest.mark.parametrize(
    ("text", "settings", "answer", "boxed"),
    [
        (r"so \boxed{4}", {}, "4", True),
        (r"so \boxed{4} of 5", {"fallback_last_number": True}, "4", True),
        ("so 4", {}, None, False),
        ("so 4", {"fallback_last_number": True}, "4", False),
        ("The answer is (D)", {"fallback_choice_letter": True}, "D", False),
        (r"<think>\boxed{3}</think>so 4", {}, None, False),
        (r"<think>\boxed{3}</think>so 4", {"fallback_last_number": True}, "4", False),
        (r"<think>\boxed{3}</think>so 4", {"strip_thinking": False}, "3", True),
        (r"\boxed{3}", {"prompt_opens_thinking": True}, None, False),
        (r"\boxed{3}", {"prompt_opens_thinking": True, "fallback_last_number": True}, None, False),
        (r"\boxed{3}</think>\boxed{4}", {"prompt_opens_thinking": True}, "4", True),
    ],
)
def test_an_answer_is_boxed_where_a_box_holds_it(text, settings, answer, boxed):
    found = examine(completion(text), ExtractionRules(**settings))
    assert (found.answer, found.boxed) == (answer, boxed)


PIECES = st.lists(st.sampled_from(["<think>", "</think>", r"\boxed{1}", "2 ", "x"]), max_size=6).map("".join)


@settings(deadline=None)
@given(PIECES)
def test_a_closing_tag_is_unopened_where_no_opening_one_stands_before_the_first(text):
    at = text.find("</think>")
    assert closes_unopened(text, RULES) == (at >= 0 and "<think>" not in text[:at])


@pytest.mark.parametrize(
    ("prompt", "opens"),
    [
        ("user: 1+1? assistant: <think>\n", True),
        ("user: 1+1? assistant:", False),
        ("assistant: <think>\n\n</think>\n\n", False),
        ("<think>a</think> 2. user: and 2+2? assistant: <think>", True),
        ("", False),
    ],
)
def test_a_prompt_opens_a_thinking_part_that_it_does_not_close(prompt, opens):
    assert prompt_opens(prompt, RULES) == opens


def test_tags_of_other_names_open_a_prompt_too():
    rules = replace(RULES, think_start="[THINK]", think_end="[/THINK]")
    assert prompt_opens("? [THINK]", rules)
    assert not prompt_opens("? <think>", rules)


def test_lengths_are_quantiles_of_all():
    found = length_summary(np.arange(101))
    assert found == {"mean": 50, "p5": 5, "p25": 25, "p50": 50, "p75": 75, "p95": 95, "max": 100}
    assert list(map(type, found.values())) == [float] * 7


def test_a_fraction_of_none_is_unknown():
    assert fraction([]) is None
    assert fraction(np.zeros(0, bool)) is None
    assert fraction([True, False, False, False]) == 0.25
