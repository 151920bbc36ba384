"""Files of completions as other programs write them: each is read, or refused in a sentence with the conversion."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssdfast.cli.app import run
from ssdfast.config import ProblemsConfig
from ssdfast.evaluation.completions import Completion, problems_beside, read
from ssdfast.problems.columns import ALIASES
from ssdfast.problems.problem import Problem

PROBLEMS = {name: Problem(name, text, "2") for name, text in {"p": "1+1?", "q": "Add.\n\n3-1", "7": "4-2?"}.items()}
USER, SYSTEM = {"role": "user", "content": "1+1?"}, {"role": "system", "content": "Think."}
ASSISTANT, LATER = {"role": "assistant", "content": "It is 2."}, {"role": "user", "content": "Sure?"}
HUMAN, GPT = {"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "It is 2."}
LM_EVAL = {
    "doc_id": 0, "doc": {"question": "1+1?", "answer": "so #### 2"}, "target": "2", "resps": [["It is 2."]],
    "filtered_resps": ["2"], "arguments": {"gen_args_0": {"arg_0": "Q: 1+1?", "arg_1": {}}}, "doc_hash": "d",
    "filter": "strict-match",
}  # fmt: skip
FLEXIBLE = LM_EVAL | {"filter": "flexible-extract", "filtered_resps": ["It is 2."]}
OUTPUT = {"choices": [{"message": ASSISTANT, "stop_reason": "max_tokens"}], "usage": {"output_tokens": 5}}
INSPECT = {"id": "p", "epoch": 2, "input": "1+1?", "target": "2", "output": OUTPUT}
BODY = {"choices": [{"index": 0, "message": ASSISTANT, "finish_reason": "stop"}], "usage": {"completion_tokens": 5}}
BATCH = {"id": "batch_req_1", "custom_id": "p", "response": {"status_code": 200, "body": BODY}, "error": None}


def rows(*values: object) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def of_p(**values: object) -> bytes:
    return rows({"problem_id": "p", "text": "It is 2."} | values)


P = [("p", 0, "It is 2.")]
READ: dict[str, tuple[bytes, list[tuple[str, int, str]]]] = {
    "capital letters": (rows({"Problem_ID": "p", "Text": "It is 2.", "Sample": 3}), [("p", 3, "It is 2.")]),
    "names with spaces": (rows({"Problem ID": "p", "Generated Text": "It is 2."}), P),
    "question in capital letters": (rows({"QUESTION": "1+1?", "Response": "It is 2."}), P),
    "exact name before another case": (rows({"id": "p", "text": "It is 2.", "Text": "no"}), P),
    "prompt as the question": (rows({"prompt": "1+1?", "completion": "It is 2."}), P),
    "query": (rows({"query": "1+1?", "response": "It is 2."}), P),
    "Alpaca": (rows({"instruction": "Add.", "input": "3-1", "output": "It is 2."}), [("q", 0, "It is 2.")]),
    "Alpaca without input": (rows({"instruction": "1+1?", "input": "", "output": "It is 2."}), P),
    "Alpaca with an id": (rows({"id": "p", "instruction": "Add.", "input": "?", "output": "It is 2."}), P),
    "ShareGPT": (rows({"conversations": [HUMAN, GPT]}), P),
    "ShareGPT with an id": (rows({"id": "p", "conversations": [HUMAN, GPT]}), P),
    "messages": (rows({"messages": [USER, ASSISTANT]}), P),
    "messages with an id and a system turn": (rows({"id": "p", "messages": [SYSTEM, USER, ASSISTANT]}), P),
    "last turn of several, with an id": (rows({"id": "p", "messages": [USER, GPT, LATER, ASSISTANT]}), P),
    "messages as the prompt": (rows({"messages": [USER], "text": "It is 2."}), P),
    "TRL turns": (rows({"prompt": [USER], "completion": [ASSISTANT]}), P),
    "TRL texts in a list": (rows({"prompt": "1+1?", "completions": ["a", "b"]}), [("p", 0, "a"), ("p", 1, "b")]),
    "prompt of turns with text": (rows({"prompt": [USER], "response": "It is 2."}), P),
    "conversation beside a prompt": (rows({"prompt": "1+1?", "messages": [USER, GPT, LATER], "text": "It is 2."}), P),
    "lm-eval": (rows(LM_EVAL), P),
    "two filters of lm-eval": (rows(LM_EVAL, FLEXIBLE), P),
    "two repeats of lm-eval": (rows(LM_EVAL | {"resps": [["a", "b"]]}, FLEXIBLE), [("p", 0, "a"), ("p", 1, "b")]),
    "two runs of lm-eval": (rows(LM_EVAL, FLEXIBLE, LM_EVAL, FLEXIBLE), [*P, ("p", 1, "It is 2.")]),
    "old lm-eval": (rows(LM_EVAL | {"arguments": [["Q: 1+1?", {"until": []}]]}), P),
    "lm-eval with an id": (rows(LM_EVAL | {"doc": {"question": "other wording", "unique_id": "p"}}), P),
    "inspect": (rows(INSPECT), [("p", 1, "It is 2.")]),
    "inspect with reasoning": (
        rows(INSPECT | {"output": {"choices": [{"message": {"content": [
            {"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "It is 2."}
        ]}}]}}),
        [("p", 1, "It is 2.")],
    ),
    "OpenAI batch": (rows(BATCH), P),
    "OpenAI batch of two choices": (
        rows(BATCH | {"response": {"body": {"choices": [*BODY["choices"], {"message": {"content": "b"}}]}}}),
        [*P, ("p", 1, "b")],
    ),
    "BOM": (b"\xef\xbb\xbf" + of_p(), P),
    "CRLF": (of_p().replace(b"\n", b"\r\n"), P),
    "int as id": (rows({"id": 7, "text": "It is 2."}), [("7", 0, "It is 2.")]),
    "the same line twice": (of_p() * 2, [*P, ("p", 1, "It is 2.")]),
    "empty text": (of_p(text=""), [("p", 0, "")]),
}  # fmt: skip

REFUSED: dict[str, tuple[str, bytes, str]] = {
    "UTF-16": ("c.jsonl", of_p().decode().encode("utf-16"), "is UTF-16: save it as UTF-8"),
    "gzip": ("c.jsonl", gzip.compress(of_p()), "is compressed: unpack it with gunzip"),
    "gzip by suffix": ("c.jsonl.gz", gzip.compress(of_p()), "which completions come in: unpack it with gunzip"),
    "JSON array": ("c.jsonl", b"[" + of_p() + b"]", "is one JSON array"),
    "pretty-printed": ("c.jsonl", json.dumps(json.loads(of_p()), indent=1).encode(), "is JSON over several lines"),
    "suffix json": ("c.json", of_p(), r"jq -c '.\[\]' FILE.json > FILE.jsonl"),
    "CSV": ("c.csv", b"id,text\np,2\n", "which completions come in: convert it to .jsonl"),
    "log of inspect": ("c.eval", b"PK\x03\x04", "inspect log dump FILE.eval"),
    "whole log of inspect": ("c.jsonl", rows({"eval": {}, "plan": {}, "samples": []}), r"jq -c '.samples\[\]'"),
    "trailing comma": ("c.jsonl", b'{"id": "p", "text": "2",}\n', "c.jsonl:1: not JSON"),
    "NaN": ("c.jsonl", b'{"id": "p", "text": NaN}\n', "NaN is not allowed in JSON"),
    "key twice": ("c.jsonl", b'{"id": "p", "text": "2", "text": "3"}\n', "the key 'text' is repeated"),
    "keys that differ in case": ("c.jsonl", rows({"id": "p", "Text": "2", "TEXT": "3"}), "differ only in case"),
    "two texts in other cases": (
        "c.jsonl",
        rows({"id": "p", "Text": "2", "Output": "3"}),
        "may both be the completion",
    ),
    "sample twice": ("c.jsonl", of_p(sample=1) * 2, "c.jsonl:2: sample 1 of problem p is there twice"),
    "id of a list": ("c.jsonl", of_p(problem_id=["p"]), "must be text or a whole number"),
    "Alpaca with two texts": (
        "c.jsonl",
        rows({"instruction": "1+1?", "input": "", "output": "2", "text": "### Instruction"}),
        "'text' and 'output' may both be the completion",
    ),
    "Alpaca of another question": (
        "c.jsonl",
        rows({"instruction": "Subtract.", "input": "3-1", "output": "2"}),
        "its question is not among the problems",
    ),
    "conversation of two questions": (
        "c.jsonl",
        rows({"messages": [USER, GPT, LATER, ASSISTANT]}),
        "2 user turns in 3",
    ),
    "conversation without an answer": ("c.jsonl", rows({"messages": [USER]}), "no text: give one of the keys"),
    "system turn without an id": ("c.jsonl", rows({"messages": [SYSTEM, USER, ASSISTANT]}), "has a system turn"),
    "preferences": (
        "c.jsonl",
        rows({"prompt": "1+1?", "chosen": "2", "rejected": "3"}),
        "the one to grade under the key",
    ),
    "TRL turns that are no answer": (
        "c.jsonl",
        rows({"prompt": [USER], "completion": [USER]}),
        "not one assistant turn",
    ),
    "lm-eval likelihoods": ("c.jsonl", rows(LM_EVAL | {"resps": [[[-1.5, False]]]}), "not generated texts"),
    "lm-eval choices": ("c.jsonl", rows(LM_EVAL | {"doc": {"question": "?", "choices": ["a"]}}), "a multiple choice"),
    "lm-eval without responses": ("c.jsonl", rows({**LM_EVAL, "resps": []}), "not generated texts"),
    "lm-eval of another question": ("c.jsonl", rows(LM_EVAL | {"doc": {"question": "9?"}}), "not among the problems"),
    "failed sample of inspect": ("c.jsonl", rows(INSPECT | {"error": {"message": "no"}}), "inspect eval-retry"),
    "inspect without a choice": ("c.jsonl", rows(INSPECT | {"output": {"choices": []}}), "does not hold one choice"),
    "failed request of a batch": ("c.jsonl", rows(BATCH | {"response": None, "error": {"code": 1}}), "send it again"),
    "error in the body of a batch": ("c.jsonl", rows(BATCH | {"response": {"body": {"error": {}}}}), "send it again"),
    "refusal in a batch": (
        "c.jsonl",
        rows(BATCH | {"response": {"body": {"choices": [{"message": {"content": None}}]}}}),
        "a choice of an OpenAI batch has no text",
    ),
    "request of a batch": ("c.jsonl", rows({"custom_id": "p", "body": {"messages": [USER]}}), "a request of an OpenAI"),
}


def completions(path: Path) -> list[Completion]:
    return list(read(path, PROBLEMS))


@pytest.mark.parametrize(("content", "samples"), READ.values(), ids=READ)
def test_files_are_read(tmp_path, content, samples):
    (tmp_path / "c.jsonl").write_bytes(content)
    read_samples = [(sample.problem_id, sample.sample, sample.text) for sample in completions(tmp_path / "c.jsonl")]
    assert read_samples == samples


@pytest.mark.parametrize(("name", "content", "message"), REFUSED.values(), ids=REFUSED)
def test_files_are_refused_in_a_sentence_with_their_name(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        completions(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)


def test_reasons_tokens_and_prompts_of_known_layouts(tmp_path):
    (tmp_path / "c.jsonl").write_bytes(
        rows(INSPECT | {"epoch": 9}, BATCH, LM_EVAL, {"id": "p", "messages": [USER, ASSISTANT]})
    )
    inspect, batch, lm_eval, messages = completions(tmp_path / "c.jsonl")
    assert (inspect.finish_reason, inspect.tokens) == ("length", 5)
    assert (batch.finish_reason, batch.tokens) == ("stop", 5)
    (tmp_path / "c.jsonl").write_bytes(of_p(prompt="Q: 1+1?") + of_p(prompt=[USER]))
    assert [sample.prompt for sample in completions(tmp_path / "c.jsonl")] == [lm_eval.prompt, messages.prompt]


def test_a_completion_is_never_its_own_gold_answer(tmp_path):
    assert not set(ALIASES["text"]) & set(ALIASES["answer"])
    alpaca = {"instruction": "Add.", "input": "3-1", "output": "It is 2."}
    for row in (alpaca, {"conversations": [HUMAN, GPT]}, {"prompt": [USER], "completion": [ASSISTANT]}):
        (tmp_path / "c.jsonl").write_bytes(rows(row))
        (problem,) = problems_beside(tmp_path / "c.jsonl", ProblemsConfig())
        assert problem.answer is None


@pytest.mark.parametrize("row", [LM_EVAL, INSPECT, {"Question": "1+1?", "Answer": "2", "Text": "x"}], ids=str)
def test_problems_and_completions_of_one_file_are_the_same(tmp_path, row):
    (tmp_path / "c.jsonl").write_bytes(rows(row))
    (problem,) = problems_beside(tmp_path / "c.jsonl", ProblemsConfig())
    (sample,) = read(tmp_path / "c.jsonl", {problem.problem_id: problem})
    assert sample.problem_id == problem.problem_id
    assert (problem.question, problem.answer) == ("1+1?", "2")


def test_an_upper_case_suffix_and_a_parquet_that_is_no_trace_table(tmp_path):
    (tmp_path / "C.JSONL").write_bytes(of_p())
    assert len(completions(tmp_path / "C.JSONL")) == 1
    pq.write_table(pa.table({"problem_id": ["p"], "text": ["2"]}), tmp_path / "c.parquet")
    with pytest.raises(ValueError, match=r"c.parquet is not a trace table"):
        completions(tmp_path / "c.parquet")
    (tmp_path / "c.parquet").write_bytes((tmp_path / "c.parquet").read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"c.parquet is not a complete Parquet file"):
        completions(tmp_path / "c.parquet")
    (tmp_path / "directory").mkdir()
    with pytest.raises(ValueError, match=r"directory holds no .parquet file"):
        completions(tmp_path / "directory")


@pytest.mark.parametrize("name", ["gzip", "JSON array", "lm-eval likelihoods", "CSV", "preferences", "key twice"])
def test_the_command_line_prints_one_line(tmp_path, capsys, name):
    file, content, _ = REFUSED[name]
    (tmp_path / file).write_bytes(content)
    (tmp_path / "problems.jsonl").write_bytes(rows({"id": "p", "question": "1+1?", "answer": "2"}))
    problems = ["--problems.sources", str(tmp_path / "problems.jsonl")]
    assert run(["eval", "--completions", f"a={tmp_path / file}", *problems, "--out", str(tmp_path / "out")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
    assert line.startswith("ssdfast: ")
    assert str(tmp_path / file) in line
