"""A loop is found at the first token at which the rule holds, whatever the chunks; what is no loop is left alone."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdfast.loop_detection import CHUNK, LoopDetector, LoopRule


def by_definition(ids, rule):
    """Tokens up to where the rule first holds, or None."""
    for end in range(1, len(ids) + 1):
        for period in range(1, rule.max_period + 1):
            span = max(rule.min_repeats * period, rule.min_tokens)
            if end >= span and all(ids[t] == ids[t - period] for t in range(end - span + period, end)):
                return end
    return None


def found(ids, rule, pieces):
    detector = LoopDetector(rule)
    start = 0
    while start < len(ids):
        size = next(pieces)
        if detector.feed(ids[start : start + size]):
            break
        start += size
    return detector.loop_at


@st.composite
def texts(draw):
    """Token ids with stretches that repeat and stretches that do not."""
    vocabulary = draw(st.sampled_from([2, 3, 40]))
    rng = random.Random(draw(st.integers(0, 2**32)))
    ids = []
    for _ in range(draw(st.integers(1, 5))):
        piece = [rng.randrange(vocabulary) for _ in range(draw(st.integers(1, 50)))]
        ids += piece * draw(st.integers(1, 6))
    return ids[:300]


@settings(max_examples=150, deadline=None)
@given(texts(), st.integers(2, 5), st.sampled_from([64, 70, 128]), st.sampled_from([1, 7, 40, 64]), st.integers(0, 99))
def test_it_is_found_where_the_definition_says(ids, repeats, min_tokens, max_period, seed):
    rule = LoopRule(repeats, min_tokens, max_period)
    rng = random.Random(seed)
    assert found(ids, rule, iter(lambda: rng.randint(1, 3 * CHUNK), 0)) == by_definition(ids, rule)


@pytest.mark.parametrize("period", [1, 16, 17, 40, 333, 1024])
@pytest.mark.parametrize("before", [0, 5, 100])
def test_each_period_is_found_within_four_of_them_or_the_least_tokens(period, before):
    rng = random.Random(period)
    once = [10 + i for i in range(period)]
    rng.shuffle(once)
    detector = LoopDetector(LoopRule())
    ids = [rng.randrange(5000, 9000) for _ in range(before)] + once * 200
    detector.feed(ids)
    assert detector.loop_at == before + max(4 * period, 128)


def test_a_period_that_is_too_long_or_broken_by_one_token_is_no_loop():
    rng = random.Random(0)
    once = [rng.randrange(9999) for _ in range(1025)]
    assert not LoopDetector(LoopRule()).feed(once * 6)
    broken = ([1, 2, 3, 4] * 31 + [9]) * 8
    assert not LoopDetector(LoopRule(max_period=64)).feed(broken)


def test_nothing_is_looked_at_after_it_was_found():
    detector = LoopDetector(LoopRule())
    assert detector.feed([7] * 500)
    assert detector.loop_at == 128
    assert detector.feed([1, 2, 3])
    assert detector.loop_at == 128


@pytest.mark.parametrize("wrong", [{"min_repeats": 1}, {"min_tokens": 63}, {"max_period": 0}])
def test_a_rule_that_no_loop_can_be_told_by_is_refused(wrong):
    with pytest.raises(ValueError, match="at least 2 repetitions and 64 tokens"):
        LoopRule(**wrong)
