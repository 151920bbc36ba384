"""Completions come in whole, whatever wrote them; what is no completion is refused by file and line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdfast import traces
from ssdfast.config import ProblemsConfig
from ssdfast.evaluation.completions import NAMES, problems_beside, read
from ssdfast.evaluation.runs import KnownSamplingParams
from ssdfast.problems.problem import Problem, write_problems
from tests import tiny

ASKED = {"p": Problem("p", "What is  $1 + 1$?", "2"), "q": Problem("q", "And 2+2?", "4")}


def lines(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def completions(path, *rows):
    return list(read(lines(path / "c.jsonl", *rows), ASKED))


def line(**values):
    return {"problem_id": "p", "text": "2"} | values


# JSONL


@pytest.mark.parametrize("name", NAMES["problem_id"])
def test_every_usual_name_of_an_id_is_known(tmp_path, name):
    assert [one.problem_id for one in completions(tmp_path, {name: 7, "text": "2"})] == ["7"]


@pytest.mark.parametrize("name", NAMES["text"])
def test_every_usual_name_of_a_text_holds_one_or_several(tmp_path, name):
    found = completions(tmp_path, {"id": "p", name: "a"}, {"id": "q", name: ["b", "", "c"]})
    assert [(one.problem_id, one.sample, one.text) for one in found] == [
        ("p", 0, "a"), ("q", 0, "b"), ("q", 1, ""), ("q", 2, "c"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES["sample"])
def test_every_usual_name_of_a_sample_numbers_it(tmp_path, name):
    assert [one.sample for one in completions(tmp_path, line(**{name: 3}), line(**{name: 0}))] == [3, 0]


@pytest.mark.parametrize("name", NAMES["tokens"])
def test_every_usual_name_of_a_length_counts_tokens(tmp_path, name):
    (one,) = completions(tmp_path, line(**{name: 12.0}))
    assert one.tokens == 12
    assert one.ids is None


@pytest.mark.parametrize("name", NAMES["question"])
@pytest.mark.parametrize("asked", ["What is  $1 + 1$?", "  what IS\n$1+1$ ?"])
def test_a_question_stands_for_its_id_whatever_its_spacing_and_case(tmp_path, name, asked):
    assert [one.problem_id for one in completions(tmp_path, {name: asked, "text": "2"})] == ["p"]


def test_samples_of_one_line_are_numbered_one_by_one(tmp_path):
    found = completions(tmp_path, line(text=["a", "b"]), line(text=["c"]), line(text=["d"], sample=9))
    assert [one.sample for one in found] == [0, 1, 2, 9]
    with pytest.raises(ValueError, match=r"c.jsonl:1: sample 4 has a list of 2 texts"):
        completions(tmp_path, line(text=["a", "b"], sample=4))


def test_two_keys_that_may_both_be_the_completion_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"c.jsonl:1: 'text' and 'response' may both be the completion"):
        completions(tmp_path, line(response="the answer", text="the question"))


def test_reasons_to_end_have_one_name_and_strange_ones_are_refused(tmp_path):
    found = completions(
        tmp_path, line(finish_reason="max_tokens"), line(finish_reason="eos"), line(finish_reason="loop")
    )
    assert [one.finish_reason for one in found] == ["length", "stop", "loop"]
    with pytest.raises(ValueError, match=r"c.jsonl:1: the finish_reason 'tired' is not one of stop, length, loop"):
        completions(tmp_path, line(finish_reason="tired"))


def test_lines_that_contradict_one_another_bring_no_problems(tmp_path):
    row = {"id": "p", "question": "1+1?", "answer": "2", "text": "x"}
    path = lines(tmp_path / "golds.jsonl", row, row | {"answer": "3"})
    with pytest.raises(ValueError, match=r"problem p has two gold answers, '2' and '3'"):
        problems_beside(path, ProblemsConfig())
    path = lines(tmp_path / "rows.jsonl", row | {"id": "row0"}, row | {"id": "row1"})
    with pytest.raises(ValueError, match=r"one question has the ids row0 and row1"):
        problems_beside(path, ProblemsConfig())


def test_a_run_that_was_stopped_is_refused(tmp_path):
    tiny.save_traces(tmp_path / "run" / "traces", 2)
    (tmp_path / "run" / "traces" / ".journal-1").write_bytes(b"")
    with pytest.raises(ValueError, match=r"is running or was stopped: finish it"):
        list(read(tmp_path / "run", {}))


def test_traces_of_all_decodings_of_an_evaluation_are_read(tmp_path):
    for number, name in enumerate(("T0.6", "T1")):
        tiny.save_traces(tmp_path / "base" / name, 2, temperature=[0.6 + 0.4 * number] * 2)
    assert [one.sampling.temperature for one in read(tmp_path / "base", {})] == [0.6, 0.6, 1.0, 1.0]


def test_an_id_goes_before_a_question(tmp_path):
    assert completions(tmp_path, line(question=ASKED["q"].question))[0].problem_id == "p"


def test_what_a_line_does_not_say_stays_unknown_and_what_it_says_is_kept(tmp_path):
    bare, full = completions(
        tmp_path,
        line(),
        line(finish_reason="length", temperature=1, top_k=20.0, top_p=0.95, min_p=0, sample=5, text=r"\boxed{2}"),
    )
    assert (bare.tokens, bare.finish_reason, bare.prompt, bare.sampling) == (None, None, "", KnownSamplingParams())
    assert (full.finish_reason, full.sample, full.text) == ("length", 5, r"\boxed{2}")
    assert full.sampling == KnownSamplingParams(1.0, 20, 0.95, 0.0)
    assert list(map(type, full.sampling)) == [float, int, float, float]
    assert (bare.trace_id, full.trace_id) == (None, "p#5")
    assert (bare.where, full.where) == (f"{tmp_path}/c.jsonl:1", f"{tmp_path}/c.jsonl:2")


def test_a_null_is_as_good_as_no_key(tmp_path):
    (one,) = completions(tmp_path, {"problem_id": None, "id": "q", "text": None, "output": "4", "tokens": None})
    assert (one.problem_id, one.text, one.tokens) == ("q", "4", None)


def test_samples_are_numbered_by_problem_and_by_decoding(tmp_path):
    rows = [line(), line(problem_id="q"), line(text=["a", "b"]), line(temperature=0.7), line(), line(temperature=0.7)]
    found = [(one.sampling.temperature, one.problem_id, one.sample) for one in completions(tmp_path, *rows)]
    assert found == [
        (None, "p", 0), (None, "q", 0), (None, "p", 1), (None, "p", 2), (0.7, "p", 0), (None, "p", 3), (0.7, "p", 1),
    ]  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("pq"), st.sampled_from((None, 0.7)), st.integers(1, 3)), max_size=12))
def test_no_unnumbered_sample_is_lost_or_there_twice(tmp_path_factory, drawn):
    rows = [line(problem_id=name, text=["x"] * many, temperature=t) for name, t, many in drawn]
    found = completions(tmp_path_factory.mktemp("drawn"), *rows)
    assert len(found) == sum(many for _, _, many in drawn)
    for arm in {(one.problem_id, one.sampling) for one in found}:
        of_arm = [one.sample for one in found if (one.problem_id, one.sampling) == arm]
        assert of_arm == list(range(len(of_arm)))


def test_blank_lines_count_in_the_number_of_a_line_and_are_no_completions(tmp_path):
    assert [one.where.rpartition(":")[2] for one in completions(tmp_path, "", line(), " ", line())] == ["2", "4"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{'problem_id': 'p'}", "not JSON"),
        ('{"problem_id": "p", "text": "2", "temperature": NaN}', r"not JSON \(NaN is not allowed in JSON\)"),
        ("[1]", "not a JSON object but list"),
        ({"problem_id": "p"}, "no text: give one of the keys text, completion, response, output"),
        (line(text=2), "'text' must be text or a list of texts, not int"),
        (line(text=["2", None]), "'text' must be text or a list of texts, not NoneType"),
        ({"id": "p", "outputs": {"text": "2"}}, "'outputs' must be text or a list of texts, not dict"),
        ({"text": "2"}, "no problem: give one of the keys problem_id, id, unique_id, uuid, question, problem"),
        ({"question": "And 3+3?", "text": "6"}, "its question is not among the problems, 'And 3[+]3[?]'"),
        (line(num_tokens=1.5), r"'num_tokens' must be a whole number in \[0, 2\^31\), got 1.5"),
        (line(tokens="12"), r"'tokens' must be a whole number in \[0, 2\^31\), got '12'"),
        (line(sample=True), r"'sample' must be a whole number in \[0, 2\^31\), got True"),
        (line(top_k=0.5), r"'top_k' must be a whole number in \[0, 2\^31\), got 0.5"),
        (line(temperature="hot"), r"'temperature' must be a number in \[0, 2\^31\), got 'hot'"),
    ],
)
def test_what_is_no_completion_is_refused_by_file_and_line(tmp_path, row, message):
    with pytest.raises(ValueError, match=rf"^{tmp_path}/c.jsonl:3: {message}"):
        completions(tmp_path, line(), line(), row)


@pytest.mark.parametrize(
    "row",
    [
        '{"problem_id": "p", "text": "2", "tokens": 1e999}',
        '{"problem_id": "p", "text": "2", "temperature": 1e999}',
        line(temperature=10**400),
        line(sample=2**31),
        line(tokens=-1),
        line(finish_reason=["stop"]),
        line(finish_reason="abort"),
        {"problem_id": ["p"], "text": "2"},
    ],
    ids=str,
)
def test_what_the_table_cannot_hold_is_refused_by_file_and_line(tmp_path, row):
    with pytest.raises(ValueError, match=rf"^{tmp_path}/c.jsonl:2: "):
        completions(tmp_path, line(), row)


def test_half_a_surrogate_pair_in_a_text_is_replaced(tmp_path):
    (one,) = completions(tmp_path, r'{"problem_id": "p", "text": "\\boxed{\ud83d}"}')
    assert one.text.encode()


def test_a_sample_that_is_there_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"c.jsonl:2: sample 1 of problem p is there twice: leave one of them out"):
        completions(tmp_path, line(sample=1), line(sample=1))
    with pytest.raises(ValueError, match=r"c.jsonl:3: sample 0 of problem q is there twice at T=0.7 p=0.9"):
        completions(tmp_path, line(), *[line(problem_id="q", sample=0, temperature=0.7, top_p=0.9)] * 2)
    assert len(completions(tmp_path, line(sample=1), line(sample=1, top_k=20), line(sample=1, problem_id="q"))) == 3


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(ValueError, match=rf"there is no file of completions {tmp_path}/none.jsonl"):
        list(read(tmp_path / "none.jsonl", ASKED))
    with pytest.raises(ValueError, match=rf"there are no traces at {tmp_path}/none.parquet: name a Parquet file"):
        list(read(tmp_path / "none.parquet", ASKED))
    with pytest.raises(ValueError, match=rf"the directory {tmp_path} holds no .parquet file"):
        list(read(tmp_path, ASKED))


TEXTS = st.text(max_size=3)
MESSAGES = st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": st.text(max_size=2)}), max_size=2)


@settings(deadline=None)
@given(st.tuples(TEXTS, TEXTS) | st.tuples(MESSAGES, MESSAGES))
def test_fingerprints_are_equal_where_the_prompts_are(tmp_path_factory, prompts):
    (first, second), path = prompts, tmp_path_factory.mktemp("drawn")
    one, other = completions(path, line(prompt=first), line(prompt=second))
    assert (one.prompt == other.prompt) == (first == second)
    assert one.prompt.startswith("text:")


def test_messages_are_a_prompt_whatever_the_order_of_their_keys(tmp_path):
    there, back = {"role": "user", "content": "?"}, {"content": "?", "role": "user"}
    one, other, third = completions(tmp_path, line(messages=[there]), line(messages=[back]), line(messages=[there] * 2))
    assert one.prompt == other.prompt != third.prompt


# Traces


def test_traces_hold_ids_text_and_decoding(tmp_path):
    table = tiny.trace_table(70, text=[f"text {n}" for n in range(70)], min_p=[0.05] * 70)
    traces.write_shard(tmp_path, 0, table.slice(0, 66))
    traces.write_shard(tmp_path, 1, table.slice(66))
    found = list(read(tmp_path, {}))
    assert [(one.problem_id, one.text) for one in found] == [(f"problem{n}", f"text {n}") for n in range(70)]
    for one, ids in zip(found, table["completion_ids"].to_pylist(), strict=True):
        assert one.ids is not None
        assert one.ids.dtype == np.int32
        assert one.ids.tolist() == ids
        assert one.tokens == len(ids)
    assert {one.sampling for one in found} == {KnownSamplingParams(1.1, 20, 0.95, 0.05)}
    assert {one.finish_reason for one in found} == {"stop"}
    assert found[67].trace_id == "problem67#0"
    assert found[67].where == f"{tmp_path}/shard-00001.parquet, trace problem67#0"


def test_a_run_a_directory_and_a_file_hold_the_same(tmp_path):
    tiny.save_traces(tmp_path / "run" / "traces", 5)
    of_run, of_directory, of_file = (
        [(one.problem_id, one.prompt, one.where) for one in read(path, {})]
        for path in (tmp_path / "run", tmp_path / "run/traces", tmp_path / "run/traces/shard-00000.parquet")
    )
    assert len(of_run) == 5
    assert of_run == of_directory == of_file


def test_fingerprints_of_token_ids_are_equal_where_these_are(tmp_path):
    prompts = [[1, 2, 3], [1, 2, 3], [1, 2], [1, 2, 4], [3, 2, 1], [1, 2, 3, 0]]
    tiny.save_traces(tmp_path, 6, prompt_ids=prompts)
    found = [one.prompt for one in read(tmp_path, {})]
    assert all(prompt.startswith("ids:") for prompt in found)
    for i, j in np.ndindex(6, 6):
        assert (found[i] == found[j]) == (prompts[i] == prompts[j])


@pytest.mark.parametrize("reason", traces.UNFINISHED)
def test_a_trace_that_was_not_finished_is_refused(tmp_path, reason):
    tiny.save_traces(tmp_path, 3, finish_reason=["stop", "length", reason], sample=[0, 1, 2])
    with pytest.raises(ValueError, match=r"shard-00000.parquet, trace problem2#2 was not finished: run the same sampl"):
        list(read(tmp_path, {}))


def test_a_trace_that_is_there_twice_is_refused(tmp_path):
    tiny.save_traces(tmp_path, 2, problem_id=["a", "a"])
    with pytest.raises(
        ValueError, match=r"trace a#0: sample 0 of problem a is there twice at T=1.1 k=20 p=0.95: leave"
    ):
        list(read(tmp_path, {}))


def test_traces_without_text_cannot_be_judged(tmp_path):
    path = traces.write_shard(tmp_path, 0, tiny.trace_table(2).drop_columns(["text"]))
    with pytest.raises(ValueError, match=rf"{path} is not a trace table: it lacks text \(its columns: problem_id"):
        list(read(tmp_path, {}))


def test_a_file_that_broke_off_is_named(tmp_path):
    path = traces.write_shard(tmp_path, 0, tiny.trace_table(2))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=rf"{path} is not a complete Parquet file"):
        list(read(tmp_path, {}))


# The problems that come with them


@pytest.mark.parametrize("where", ["run", "run/traces", "run/traces/shard-00000.parquet", "run/traces/a/T1"])
def test_problems_lie_beside_the_traces_of_a_run(tmp_path, where):
    for inside in ("traces", "traces/a/T1"):
        tiny.save_traces(tmp_path / "run" / inside, 2)
    write_problems(tmp_path / "run" / "problems.jsonl", ASKED.values())
    assert problems_beside(tmp_path / where, ProblemsConfig()) == list(ASKED.values())


def test_traces_without_problems_ask_for_them(tmp_path):
    tiny.save_traces(tmp_path / "a/b/c/traces", 2)
    with pytest.raises(
        ValueError, match=r"there is no problems.jsonl beside .*traces: name the problems in problems.sour"
    ):
        problems_beside(tmp_path / "a/b/c/traces", ProblemsConfig())


def test_lines_hold_their_own_problems_once_and_without_their_text(tmp_path):
    asked = {"question": "1+1?", "answer": "2", "level": 3}
    path = lines(tmp_path / "c.jsonl", *({"id": "p", "text": text} | asked for text in ("a", "b")))
    assert problems_beside(path, ProblemsConfig()) == [Problem("p", "1+1?", "2", "c", "3")]


def test_lines_without_ids_are_found_by_the_questions_they_hold(tmp_path):
    path = lines(tmp_path / "c.jsonl", *({"problem": f"{n}+1?", "answer": "2", "text": "x"} for n in (1, 2, 1)))
    asked = {problem.problem_id: problem for problem in problems_beside(path, ProblemsConfig())}
    assert len(asked) == 2
    found = [(asked[one.problem_id].question, one.sample) for one in read(path, asked)]
    assert found == [("1+1?", 0), ("2+1?", 0), ("1+1?", 1)]


def test_an_empty_id_is_none_and_an_empty_text_is_an_answer(tmp_path):
    asked = {"p": Problem("p", "How many?", "2")}
    (tmp_path / "c.jsonl").write_text('{"id": "", "question": "How many?", "text": ""}\n')
    (one,) = read(tmp_path / "c.jsonl", asked)
    assert (one.problem_id, one.text) == ("p", "")


def test_no_text_in_a_list_of_texts_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"c.jsonl:1: no text"):
        completions(tmp_path, '{"id": "p", "text": []}')


def test_tokens_without_text_and_temperatures_that_are_no_number_are_refused(tmp_path):
    tiny.save_traces(tmp_path / "a", 2, text=[None, ""])
    with pytest.raises(ValueError, match=r"problem0#0 has tokens and no text"):
        list(read(tmp_path / "a", {}))
    tiny.save_traces(tmp_path / "b", 2, temperature=[float("nan")] * 2)
    with pytest.raises(ValueError, match=r"problem0#0: its sampling parameters are not numbers"):
        list(read(tmp_path / "b", {}))


def test_lines_without_questions_name_the_remedy(tmp_path):
    (tmp_path / "c.jsonl").write_text('{"id": "p", "text": "2"}\n')
    with pytest.raises(ValueError, match=r"c.jsonl has no problems of its own .*name them in problems.sources"):
        problems_beside(tmp_path / "c.jsonl", ProblemsConfig())
