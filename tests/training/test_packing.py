"""Bins lose nothing, waste little, and are distributed evenly over ranks."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ssdfast.training.packing import distribute, first_fit_decreasing, padded_bins

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 40))
@settings(deadline=None)
def test_every_length_is_in_one_bin_that_holds_it(lengths, budget):
    bins = first_fit_decreasing(lengths, budget)
    assert sorted(index for indices in bins for index in indices) == list(range(len(lengths)))
    for indices in bins:
        assert sum(lengths[index] for index in indices) <= budget or len(indices) == 1


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=12))
@settings(deadline=None)
def test_bins_are_at_most_eleven_ninths_of_the_fewest_and_one(full):
    """Each list is filled up to the budget, so the number of lists is the minimum number of bins."""
    budget = 60
    lengths = [length for filled in full for length in (*filled, budget - sum(filled))]
    assert len(first_fit_decreasing(lengths, budget)) <= 11 / 9 * len(full) + 6 / 9


@given(LENGTHS, st.integers(30, 60))
@settings(deadline=None)
def test_each_goes_into_the_first_bin_that_has_room(lengths, budget):
    bins: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        fits = (indices for indices in bins if sum(lengths[other] for other in indices) + lengths[index] <= budget)
        first = next(fits, None)
        if first is None:
            bins.append([index])
        else:
            first.append(index)
    assert first_fit_decreasing(lengths, budget) == bins


@given(LENGTHS, st.integers(1, 80))
@settings(deadline=None)
def test_padded_bins_hold_their_longest_as_often_as_they_have_traces(lengths, budget):
    bins = padded_bins(lengths, budget)
    assert sorted(index for indices in bins for index in indices) == list(range(len(lengths)))
    for indices in bins:
        assert max(lengths[index] for index in indices) * len(indices) <= budget or len(indices) == 1


@given(LENGTHS, st.integers(1, 80), st.integers(1, 5))
@settings(deadline=None)
def test_every_rank_has_as_many_bins_and_every_trace_is_in_one_of_them(lengths, budget, ranks):
    bins = first_fit_decreasing(lengths, budget)
    by_rank = distribute(bins, lengths, ranks)
    assert len(by_rank) == ranks
    assert len({len(bins_of_rank) for bins_of_rank in by_rank}) == 1
    assert sorted(index for bins_of_rank in by_rank for indices in bins_of_rank for index in indices) == list(
        range(len(lengths))
    )
    all_bins = [indices for bins_of_rank in by_rank for indices in bins_of_rank]
    assert len(all_bins) >= min(2, len(lengths))
    # No bin is empty while another has several traces, and none exceeds the budget.
    assert all(all_bins) or max(map(len, all_bins)) == 1
    assert all(sum(lengths[index] for index in indices) <= budget or len(indices) == 1 for indices in all_bins)


def test_bins_are_distributed_by_their_tokens():
    lengths = [10, 9, 2, 1]
    by_rank = distribute([[0], [1], [2], [3]], lengths, 2)
    assert sorted(sum(lengths[index] for indices in bins_of_rank for index in indices) for bins_of_rank in by_rank) == [
        11,
        11,
    ]
