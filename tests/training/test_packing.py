"""Bins lose nothing, waste little, and are shared out evenly."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ssdfast.training.packing import first_fit_decreasing, padded_bins, shared

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 40))
@settings(deadline=None)
def test_every_length_is_in_one_bin_that_holds_it(lengths, budget):
    bins = first_fit_decreasing(lengths, budget)
    assert sorted(place for one in bins for place in one) == list(range(len(lengths)))
    for one in bins:
        assert sum(lengths[place] for place in one) <= budget or len(one) == 1


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=12))
@settings(deadline=None)
def test_bins_are_at_most_eleven_ninths_of_the_fewest_and_one(full):
    """Each list is filled up to the budget, so that as many bins as lists are the fewest there can be."""
    budget = 60
    lengths = [length for one in full for length in (*one, budget - sum(one))]
    assert len(first_fit_decreasing(lengths, budget)) <= 11 / 9 * len(full) + 6 / 9


@given(LENGTHS, st.integers(30, 60))
@settings(deadline=None)
def test_each_goes_into_the_first_bin_that_has_room(lengths, budget):
    bins: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        fits = (one for one in bins if sum(lengths[other] for other in one) + lengths[place] <= budget)
        first = next(fits, None)
        if first is None:
            bins.append([place])
        else:
            first.append(place)
    assert first_fit_decreasing(lengths, budget) == bins


@given(LENGTHS, st.integers(1, 80))
@settings(deadline=None)
def test_padded_bins_hold_their_longest_as_often_as_they_have_traces(lengths, budget):
    bins = padded_bins(lengths, budget)
    assert sorted(place for one in bins for place in one) == list(range(len(lengths)))
    for one in bins:
        assert max(lengths[place] for place in one) * len(one) <= budget or len(one) == 1


@given(LENGTHS, st.integers(1, 80), st.integers(1, 5))
@settings(deadline=None)
def test_every_rank_has_as_many_bins_and_every_trace_is_learnt_once(lengths, budget, ranks):
    bins = first_fit_decreasing(lengths, budget)
    found = shared(bins, lengths, ranks)
    assert len(found) == ranks
    assert len({len(mine) for mine in found}) == 1
    assert sorted(place for mine in found for one in mine for place in one) == list(range(len(lengths)))
    everything = [one for mine in found for one in mine]
    assert len(everything) >= min(2, len(lengths))
    # No bin stands empty while another has traces to spare, and none has outgrown the budget.
    assert all(everything) or max(map(len, everything)) == 1
    assert all(sum(lengths[place] for place in one) <= budget or len(one) == 1 for one in everything)


def test_bins_are_shared_out_by_their_tokens():
    lengths = [10, 9, 2, 1]
    found = shared([[0], [1], [2], [3]], lengths, 2)
    assert sorted(sum(lengths[place] for one in mine for place in one) for mine in found) == [11, 11]
