"""Budgets are nested, in proportion, and depend on nothing but ids, strata and seed."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdfast.evaluation.stats.subsets import stratified_subset


@st.composite
def problems(draw):
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=8))
    return [(f"p{s}-{n}", f"stratum {s}") for s, size in enumerate(sizes) for n in range(size)]


@settings(max_examples=50, deadline=None)
@given(problems(), st.integers(0, 2**31))
def test_every_size_is_nested_and_within_one_of_its_share(found, seed):
    ids, strata = zip(*found, strict=True)
    order = stratified_subset(ids, strata, len(ids), seed)
    assert sorted(order) == sorted(ids)
    whole, of = Counter(strata), dict(found)
    for size in {1, len(ids) // 3 + 1, len(ids)}:
        assert stratified_subset(ids, strata, size, seed) == order[:size]
    for size in range(1, len(ids) + 1):
        counts = Counter(of[name] for name in order[:size])
        assert all(abs(counts[name] - size * whole[name] / len(ids)) < 1 for name in whole)


@settings(max_examples=50, deadline=None)
@given(problems(), st.integers(0, 2**31))
def test_the_order_of_the_input_does_not_matter(found, seed):
    ids, strata = zip(*found, strict=True)
    shuffled = random.Random(seed).sample(found, len(found))
    assert stratified_subset(*zip(*shuffled, strict=True), len(ids) // 2 + 1, seed) == stratified_subset(
        ids, strata, len(ids) // 2 + 1, seed
    )


def test_the_seed_draws_other_problems_evenly():
    ids = [str(n) for n in range(20)]
    drawn = Counter(name for seed in range(2000) for name in stratified_subset(ids, ["one"] * 20, 5, seed))
    assert len(drawn) == 20
    assert all(abs(count - 500) < 4 * (2000 * 0.25 * 0.75) ** 0.5 for count in drawn.values())


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="1 problem ids appear twice, the first 'a'"):
        stratified_subset(["a", "b", "a"], [0, 0, 1], 2)
    with pytest.raises(ValueError, match="3 problems and 2 strata"):
        stratified_subset(["a", "b", "c"], [0, 0], 2)
    for size in (0, 4):
        with pytest.raises(ValueError, match=f"{size} of 3 problems"):
            stratified_subset(["a", "b", "c"], [0, 0, 1], size)
