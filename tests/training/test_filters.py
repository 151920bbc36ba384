"""What is left out is left out by name, and the report says what that did."""

import json

import pytest

from ssdfast.training.examples import read_examples
from ssdfast.training.filters import filtered, told

from .. import tiny

IDS = [[3], [4, 5, 6], [7] * 5, [8] * 12]


@pytest.fixture
def examples(tmp_path):
    tops = [[[9, 8]] * len(ids) for ids in IDS]
    tiny.save_traces(
        tmp_path,
        4,
        prompt_ids=[[1, 2]] * 4,
        completion_ids=IDS,
        finish_reason=["stop", "stop", "length", "loop"],
        difficulty=["1", "1", None, "2"],
        correct=[True, False, True, False],
        top_ids=tops,
        top_logprobs=[[[-0.5, -1.5]] * len(ids) for ids in IDS],
    )
    return list(read_examples(tmp_path, tiny.VOCABULARY))


def test_nothing_is_left_out_unless_it_is_asked_for(examples):
    kept, report = filtered(examples, 14, "error", False)
    assert kept == examples
    assert report["before"] == report["after"]
    assert report["before"] == {
        "traces": 4,
        "completion_tokens": 21,
        "by_length_up_to": {"1": 1, "4": 1, "8": 1, "16": 1},
        "by_finish_reason": {"length": 1, "loop": 1, "stop": 2},
        "by_difficulty": {"1": 2, "2": 1, "unknown": 1},
        "by_correct": {"no": 2, "yes": 2},
    }
    assert told(report) == []
    assert json.loads(json.dumps(report)) == report


def test_an_overlong_trace_is_named(examples):
    with pytest.raises(
        ValueError, match=r"trace problem3#0 has 14 tokens, and 13 are allowed: --on-too-long drop or trunc"
    ):
        filtered(examples, 13, "error", False)


def test_dropping_says_what_it_dropped(examples):
    kept, report = filtered(examples, 6, "drop", False)
    assert [one.trace.problem_id for one in kept] == ["problem0", "problem1"]
    assert told(report) == ["too long: 2 traces removed, 0 cut, 17 completion tokens"]
    assert report["filters"][0]["removed"]["by_finish_reason"] == {"length": 1, "loop": 1}
    assert report["after"]["by_finish_reason"] == {"stop": 2}


def test_truncation_cuts_the_completion_and_its_lists_and_never_the_prompt(examples):
    kept, report = filtered(examples, 4, "truncate", False)
    assert [one.trace.completion_ids.tolist() for one in kept] == [[3], [4, 5], [7, 7], [8, 8]]
    assert [len(one.top_ids_LK) for one in kept] == [len(one.top_logprobs_LK) for one in kept] == [1, 2, 2, 2]
    assert [one.finish_reason for one in kept] == ["stop", "length", "length", "length"]
    assert all(one.trace.prompt_ids.tolist() == [1, 2] for one in kept)
    assert told(report) == ["cut off at the limit: 0 traces removed, 3 cut, 14 completion tokens"]


def test_a_prompt_that_leaves_no_room_goes_whole(examples):
    with pytest.raises(ValueError, match=r"no trace is left of 4: cut off at the limit: 4 traces removed"):
        filtered(examples, 2, "truncate", False)


def test_only_correct_ones(examples, tmp_path):
    kept, report = filtered(examples, 99, "error", True)
    assert [one.trace.problem_id for one in kept] == ["problem0", "problem2"]
    assert report["filters"][0]["removed"]["by_correct"] == {"no": 2}
    tiny.save_traces(tmp_path / "unknown", 2)
    with pytest.raises(ValueError, match=r"problem0#0: nobody says whether it is right"):
        filtered(list(read_examples(tmp_path / "unknown", tiny.VOCABULARY)), 99, "error", True)
