"""Which positions and which traces are chosen: against brute force, whatever the order, and the same for ever."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdfast.config import PositionConfig
from ssdfast.probing.position_selection import Candidate, select_positions, select_traces, strata_counts

TEXTS = [
    "",
    "Wait",
    " Wait",
    "W",
    "ait",
    "ing",
    ",",
    "\\",
    "boxed",
    "{",
    "7",
    "<",
    "think",
    ">",
    "</",
    " Let",
    "\n",
    "é",
]
LANDMARKS = PositionConfig().landmarks

ids_of = st.lists(st.integers(0, len(TEXTS) - 1), max_size=60).map(lambda ids: np.array(ids, np.int32))


def chosen(ids, rules, seed=0, key="a"):
    got = select_positions(np.array(ids, np.int32), rules, TEXTS, seed, key)
    assert got.dtype == np.int32
    return got.tolist()


def spelled(*pieces):
    return [TEXTS.index(piece) for piece in pieces]


@given(
    ids_of,
    st.sampled_from(["all", "stride", "landmarks", "random"]),
    st.integers(1, 70),
    st.integers(0, 70),
    st.integers(1, 70),
    st.integers(),
)
def test_positions_are_sorted_and_within_the_completion(ids, how, every, around, count, seed):
    got = chosen(ids, PositionConfig(select=how, stride=every, window=around, per_trace=count), seed)
    assert got == sorted(set(got) & set(range(len(ids))))
    if how == "all":
        assert got == list(range(len(ids)))
    if how == "stride":
        assert got == [j for j in range(len(ids)) if j % every == 0]
    if how == "random":
        assert len(got) == min(count, len(ids))


def landmarks_by_hand(ids, landmarks, around):
    """Spell out the text character by character, each with its token, and look at every character in turn."""
    text = [(character, token) for token, token_id in enumerate(ids) for character in TEXTS[token_id]]
    found = set()
    for landmark in landmarks:
        for at in range(len(text)):
            if "".join(character for character, _ in text[at : at + len(landmark)]) != landmark:
                continue
            before = text[at - 1][0] if at else " "
            after = text[at + len(landmark)][0] if at + len(landmark) < len(text) else " "
            letter = re.compile(r"[^\W\d_]")
            whole = not (letter.match(before) or (letter.match(landmark[-1]) and letter.match(after)))
            if whole or not letter.match(landmark[0]):
                found.add(text[at][1])
    return sorted({j for at in found for j in range(at - around, at + around + 1) if 0 <= j < len(ids)})


@settings(max_examples=400)
@given(ids_of, st.sampled_from([LANDMARKS, ("Wait,", "ait", "Wait7", "7"), ("<th", "think>", "{<")]), st.integers(0, 5))
def test_landmarks_are_those_that_brute_force_finds(ids, landmarks, around):
    rules = PositionConfig(select="landmarks", landmarks=landmarks, window=around)
    assert chosen(ids, rules) == landmarks_by_hand(ids.tolist(), landmarks, around)


@pytest.mark.parametrize(
    ("pieces", "want"),
    [
        (("7", "\\", "boxed", "{", "7"), [1]),
        (("7", "W", "ait", ","), [1]),
        (("7", "", "Wait"), [2]),  # not the token without a text, though the landmark begins where that one is
        (("<", "think", ">", "7", "</", "think", ">"), [0, 4]),
        (("Wait", "ing"), []),
        (("é", "Wait"), []),
        (("7", "Wait", "7"), [1]),  # digits are no letters
        (("\\", "boxed", "ing"), [0]),  # literal
        (("Wait", " Wait", "\n", " Let"), [0, 1, 3]),
        (("7", "7"), []),
        ((), []),
    ],
)
def test_a_landmark_is_where_its_first_character_is(pieces, want):
    assert chosen(spelled(*pieces), PositionConfig(select="landmarks", window=0)) == want


def test_landmarks_may_overlap():
    rules = PositionConfig(select="landmarks", landmarks=("<think>", ">7", ">7,"), window=0)
    assert chosen(spelled("<", "think", ">", "7", ","), rules) == [0, 2]
    assert chosen([10] * 4, PositionConfig(select="landmarks", landmarks=("77",), window=0)) == [0, 1, 2]


def test_a_word_may_go_on_after_a_sign():
    rules = PositionConfig(select="landmarks", landmarks=("Wait,",), window=0)
    assert chosen(spelled("Wait", ",", "ing", ",", "Wait", ","), rules) == [0, 4]


def test_what_is_around_a_landmark_is_clipped():
    pieces = ["7"] * 4 + ["Wait"] + ["7"] * 5
    rules = {around: PositionConfig(select="landmarks", window=around) for around in (0, 2, 5, 10**9)}
    got = {around: chosen(spelled(*pieces), rule) for around, rule in rules.items()}
    assert got == {0: [4], 2: [2, 3, 4, 5, 6], 5: list(range(10)), 10**9: list(range(10))}


def test_random_positions_are_pinned():
    """A run that is resumed, or repeated elsewhere, draws these."""
    rules = PositionConfig(select="random", per_trace=5)
    assert chosen([10] * 1000, rules, seed=3, key="trained\x00p7#0") == PINNED_POSITIONS
    assert chosen([7] * 1000, rules, seed=3, key="trained\x00p7#0") == PINNED_POSITIONS
    assert chosen([10] * 1000, rules, seed=4, key="trained\x00p7#0") != PINNED_POSITIONS
    assert chosen([10] * 1000, rules, seed=3, key="trained\x00p7#1") != PINNED_POSITIONS


def test_random_positions_are_even():
    rules = PositionConfig(select="random", per_trace=3)
    hits = np.bincount([j for i in range(4000) for j in chosen([10] * 12, rules, key=str(i))], minlength=12)
    # 4,000 traces hit a position 1,000 times on average, with a standard deviation of 27.
    assert abs(hits - 1000).max() < 5 * 27


PINNED_POSITIONS = [2, 86, 338, 684, 923]

described = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(1, 40), st.sampled_from([True, False, None])), max_size=80
).map(lambda rows: [Candidate(*row, key=f"key{i}") for i, row in enumerate(rows)])


def stratum_by_hand(trace, everyone):
    tokens = sorted(other.tokens for other in everyone)
    cuts = np.percentile(tokens, [25, 50, 75])
    return sum(trace.tokens > cut for cut in cuts), trace.correct, trace.trace_source


def counts_by_hand(sizes, count):
    """Give one to each stratum that has one left, turn by turn: the least and the most that each may have."""
    turns = [0] * len(sizes)
    left = min(count, sum(sizes))
    while left >= (open_strata := sum(turn < size for turn, size in zip(turns, sizes, strict=True))) > 0:
        turns = [min(turn + 1, size) for turn, size in zip(turns, sizes, strict=True)]
        left -= open_strata
    return turns, left


@given(described, st.integers(1, 90), st.integers(0, 5))
def test_traces_are_sampled_evenly_from_the_strata(traces, count, seed):
    got = select_traces(traces, count, seed).tolist()
    assert got == sorted(set(got) & set(range(len(traces))))
    sizes, taken = {}, {}
    for index, trace in enumerate(traces):
        name = stratum_by_hand(trace, traces)
        sizes[name] = sizes.get(name, 0) + 1
        taken[name] = taken.get(name, 0) + (index in got)
    least, more = counts_by_hand(list(sizes.values()), count)
    extra = [taken[name] - share for name, share in zip(sizes, least, strict=True)]
    assert set(extra) <= {0, 1}
    assert sum(extra) == more
    assert len(got) == min(count, len(traces))


@given(described, st.integers(1, 90), st.integers(0, 5), st.randoms())
def test_sampled_traces_do_not_depend_on_the_order_of_the_traces(traces, count, seed, random):
    other = random.sample(traces, len(traces))
    assert {traces[i].key for i in select_traces(traces, count, seed)} == {
        other[i].key for i in select_traces(other, count, seed)
    }


@given(described, st.integers(1, 90))
def test_the_table_of_strata_adds_up(traces, count):
    got = select_traces(traces, count, 0)
    rows = strata_counts(traces, got)
    assert sum(row["traces"] for row in rows) == len(traces)
    assert sum(row["selected"] for row in rows) == len(got)
    for row in rows:
        inside = {
            i
            for i, trace in enumerate(traces)
            if (trace.correct, trace.trace_source) == (row["correct"], row["trace_source"])
        }
        assert row["traces"] <= len(inside)
        assert row["selected"] <= len(inside & set(got.tolist()))


def test_the_table_of_strata_names_them():
    traces = [Candidate("a", tokens, True, str(tokens)) for tokens in (10, 20, 30, 40, 41)]
    assert strata_counts(traces, np.array([0, 4])) == [
        {"length": "shortest quarter", "correct": True, "trace_source": "a", "traces": 2, "selected": 1},
        {"length": "second quarter", "correct": True, "trace_source": "a", "traces": 1, "selected": 0},
        {"length": "third quarter", "correct": True, "trace_source": "a", "traces": 1, "selected": 0},
        {"length": "longest quarter", "correct": True, "trace_source": "a", "traces": 1, "selected": 1},
    ]


def test_strata_are_quarters_by_length():
    traces = [Candidate("a", tokens, None, str(tokens)) for tokens in range(100)]
    assert [row["traces"] for row in strata_counts(traces, np.array([], int))] == [25, 25, 25, 25]


def test_within_a_stratum_chance_decides():
    traces = [Candidate("a", 5, None, f"key{i}") for i in range(10)]
    hits = np.bincount(np.concatenate([select_traces(traces, 3, seed) for seed in range(2000)]), minlength=10)
    # 600 on average, with a standard deviation of 20.5.
    assert abs(hits - 600).max() < 5 * 20.5


def test_the_remainder_favours_no_stratum():
    traces = [Candidate(label, 5, None, f"{label}{i}") for label in "abc" for i in range(4)]
    label_of = [traces[i].trace_source for seed in range(900) for i in select_traces(traces, 1, seed)]
    assert {label for label in label_of if 230 < label_of.count(label) < 370} == set("abc")


def test_sampled_traces_are_pinned():
    traces = [Candidate("ab"[i % 2], i * i, [True, False, None][i % 3], f"key{i}") for i in range(30)]
    assert select_traces(traces, 7, seed=1).tolist() == PINNED_TRACES


PINNED_TRACES = [10, 13, 17, 20, 25, 26, 29]
