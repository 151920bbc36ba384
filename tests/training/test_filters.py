"""Filters name what they remove, and report how the distribution of traces changes."""

import json

import pytest

from ssdfast.training.examples import read_examples
from ssdfast.training.filters import filter_examples, format_filters

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


def test_nothing_is_filtered_by_default(examples):
    remaining, report = filter_examples(examples, 14, "error", False)
    assert remaining == examples
    assert report["before"] == report["after"]
    assert report["before"] == {
        "traces": 4,
        "completion_tokens": 21,
        "by_length_up_to": {"1": 1, "4": 1, "8": 1, "16": 1},
        "by_finish_reason": {"length": 1, "loop": 1, "stop": 2},
        "by_difficulty": {"1": 2, "2": 1, "unknown": 1},
        "by_correct": {"no": 2, "yes": 2},
    }
    assert format_filters(report) == []
    assert json.loads(json.dumps(report)) == report


def test_a_trace_that_is_too_long_is_named(examples):
    with pytest.raises(
        ValueError, match=r"trace problem3#0 has 14 tokens, and 13 are allowed: --on-too-long drop or trunc"
    ):
        filter_examples(examples, 13, "error", False)


def test_dropping_reports_what_it_removed(examples):
    remaining, report = filter_examples(examples, 6, "drop", False)
    assert [example.trace.problem_id for example in remaining] == ["problem0", "problem1"]
    assert format_filters(report) == ["too long: 2 traces removed, 0 truncated, 17 completion tokens removed"]
    assert report["filters"][0]["removed"]["by_finish_reason"] == {"length": 1, "loop": 1}
    assert report["after"]["by_finish_reason"] == {"stop": 2}


def test_truncation_cuts_the_completion_and_its_lists_and_never_the_prompt(examples):
    remaining, report = filter_examples(examples, 4, "truncate", False)
    assert [example.trace.completion_ids.tolist() for example in remaining] == [[3], [4, 5], [7, 7], [8, 8]]
    assert (
        [len(example.top_ids_LK) for example in remaining]
        == [len(example.top_logprobs_LK) for example in remaining]
        == [1, 2, 2, 2]
    )
    assert [example.finish_reason for example in remaining] == ["stop", "length", "length", "length"]
    assert all(example.trace.prompt_ids.tolist() == [1, 2] for example in remaining)
    assert format_filters(report) == ["truncated: 0 traces removed, 3 truncated, 14 completion tokens removed"]


def test_a_trace_whose_prompt_leaves_no_room_is_removed(examples):
    with pytest.raises(ValueError, match=r"no trace is left of 4: truncated: 4 traces removed"):
        filter_examples(examples, 2, "truncate", False)


def test_correct_only_keeps_correct_traces(examples, tmp_path):
    remaining, report = filter_examples(examples, 99, "error", True)
    assert [example.trace.problem_id for example in remaining] == ["problem0", "problem2"]
    assert report["filters"][0]["removed"]["by_correct"] == {"no": 2}
    tiny.save_traces(tmp_path / "unknown", 2)
    with pytest.raises(ValueError, match=r"problem0#0: its correctness is unknown"):
        filter_examples(list(read_examples(tmp_path / "unknown", tiny.VOCABULARY)), 99, "error", True)
