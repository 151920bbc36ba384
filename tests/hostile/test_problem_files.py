"""Files of problems as other programs write them: each is read, or refused in a sentence with the conversion."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssdfast.cli.app import run
from ssdfast.config import ColumnsConfig, ProblemsConfig
from ssdfast.problems import files
from ssdfast.problems.sources import load_problems
from tests import tiny

USER = {"role": "user", "content": "1+1?"}
ASSISTANT = {"role": "assistant", "content": "It is 2."}
SYSTEM = {"role": "system", "content": "Answer in French."}
HUMAN, GPT = {"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "It is 2."}
DOC = {"question": "1+1?", "answer": "so #### 2"}
LM_EVAL = {
    "doc_id": 0, "doc": DOC, "target": "so #### 2", "resps": [["It is 2."]], "filtered_resps": ["2"],
    "arguments": {"gen_args_0": {"arg_0": "Q: 1+1?"}}, "filter": "strict-match",
}  # fmt: skip
INSPECT = {"id": "p", "epoch": 1, "input": "1+1?", "target": "2", "output": {"choices": [{"message": ASSISTANT}]}}
VERL = {
    "data_source": "gsm8k", "prompt": [USER], "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": "2"}, "extra_info": {"index": 0},
}  # fmt: skip


def rows(*values: object) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def question(*, answer: object = "2", **more: object) -> bytes:
    return rows({"question": "1+1?", "answer": answer} | more)


READ: dict[str, tuple[str, bytes, list[tuple[str, str | None]]]] = {
    "capital letters": ("a.jsonl", rows({"Question": "1+1?", "ANSWER": "2"}), [("1+1?", "2")]),
    "columns of AIME": ("a.jsonl", rows({"ID": 1, "Problem": "1+1?", "Solution": "so", "Answer": 2}), [("1+1?", "2")]),
    "names with spaces": ("a.csv", b"Question, Final Answer\n1+1?,2\n", [("1+1?", "2")]),
    "expected answer": ("a.jsonl", rows({"problem": "1+1?", "expected_answer": "2"}), [("1+1?", "2")]),
    "query": ("a.jsonl", rows({"query": "1+1?", "response": "It is 2."}), [("1+1?", None)]),
    "exact name before another case": ("a.jsonl", question(Answer="B"), [("1+1?", "2")]),
    "Alpaca": ("a.jsonl", rows({"instruction": "Add.", "input": "1+1?", "output": "2"}), [("Add.\n\n1+1?", None)]),
    "Alpaca without input": ("a.jsonl", rows({"instruction": "1+1?", "input": "", "output": "2"}), [("1+1?", None)]),
    "Alpaca with an answer": (
        "a.jsonl",
        rows({"Instruction": "Add.", "Input": "1+1", "answer": "2"}),
        [("Add.\n\n1+1", "2")],
    ),
    "Alpaca in CSV": ("a.csv", b"instruction,input,output\nAdd.,1+1,2\n", [("Add.\n\n1+1", None)]),
    "ShareGPT": ("a.jsonl", rows({"id": "x", "conversations": [HUMAN, GPT]}), [("1+1?", None)]),
    "messages": ("a.jsonl", rows({"messages": [USER, ASSISTANT], "answer": "2"}), [("1+1?", "2")]),
    "messages in parts": (
        "a.jsonl",
        rows({"messages": [{"role": "user", "content": [{"type": "text", "text": "1+1?"}]}]}),
        [("1+1?", None)],
    ),
    "empty system turn": ("a.jsonl", rows({"messages": [{"role": "system", "content": ""}, USER]}), [("1+1?", None)]),
    "TRL prompt and completion": ("a.jsonl", rows({"prompt": "1+1?", "completion": "2"}), [("1+1?", None)]),
    "TRL conversational prompt": ("a.jsonl", rows({"prompt": [USER], "solution": "2"}), [("1+1?", "2")]),
    "verl": ("a.jsonl", rows(VERL), [("1+1?", "2")]),
    "verl with text": ("a.jsonl", rows(VERL | {"prompt": "1+1?"}), [("1+1?", "2")]),
    "lm-eval": ("a.jsonl", rows(LM_EVAL), [("1+1?", "2")]),
    "two filters of lm-eval": ("a.jsonl", rows(LM_EVAL, LM_EVAL | {"filter": "flexible-extract"}), [("1+1?", "2")]),
    "lm-eval with a document of Alpaca": (
        "a.jsonl",
        rows(LM_EVAL | {"doc": {"instruction": "Add.", "input": "1+1"}}),
        [("Add.\n\n1+1", "2")],
    ),
    "sample of inspect": ("a.jsonl", rows(INSPECT), [("1+1?", "2")]),
    "sample of inspect with a conversation": (
        "a.jsonl",
        rows(INSPECT | {"input": [USER], "target": ["2"]}),
        [("1+1?", "2")],
    ),
    "BOM": ("a.jsonl", b"\xef\xbb\xbf" + question(), [("1+1?", "2")]),
    "BOM in CSV": ("a.csv", b"\xef\xbb\xbfquestion,answer\n1+1?,2\n", [("1+1?", "2")]),
    "CRLF": ("a.csv", b"question,answer\r\n1+1?,2\r\n", [("1+1?", "2")]),
    "upper-case suffix": ("A.JSONL", question(), [("1+1?", "2")]),
    "quotes in quotes": ("a.csv", b'question,answer\n"Say ""a, b"" twice?","a, b"\n', [('Say "a, b" twice?', "a, b")]),
    "trailing commas in every line": ("a.csv", b"question,answer,\n1+1?,2,\n", [("1+1?", "2")]),
    "list of answers": ("a.jsonl", question(answer=["2", "two"]), [("1+1?", '["2","two"]')]),
    "list of one answer": ("a.jsonl", question(answer=["2"]), [("1+1?", "2")]),
    "int as id": ("a.jsonl", question(id=7), [("1+1?", "2")]),
    "duplicate line": ("a.jsonl", question(id=7) * 2, [("1+1?", "2")]),
}

REFUSED: dict[str, tuple[str, bytes, str]] = {
    "empty file": ("a.jsonl", b"", "holds no problem"),
    "empty CSV": ("a.csv", b"", "holds no problem"),
    "header alone": ("a.csv", b"question,answer\n", "holds no problem"),
    "UTF-16": ("a.jsonl", question().decode().encode("utf-16"), "is UTF-16: save it as UTF-8"),
    "UTF-16 without BOM": ("a.jsonl", question().decode().encode("utf-16-le"), "is UTF-16 or no text at all"),
    "UTF-16 in CSV": ("a.csv", "question\n1+1?\n".encode("utf-16"), "is UTF-16: save it as UTF-8"),
    "Latin-1 names": (
        "a.csv",
        "Frage für alle,answer\n1+1?,2\n".encode("latin-1"),
        "names of its columns are not UTF-8",
    ),
    "gzip": ("a.jsonl", gzip.compress(question()), "is compressed: unpack it with gunzip"),
    "gzip by suffix": ("a.jsonl.gz", gzip.compress(question()), "unpack it with gunzip"),
    "spreadsheet": ("a.csv", b"PK\x03\x04rest", "export a spreadsheet as CSV"),
    "Parquet by content": ("a.jsonl", b"PAR1rest", "rename it to end in .parquet"),
    "pointer of Git LFS": ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "pointer of Git LFS in JSONL": ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "JSON array": ("a.jsonl", b"[\n" + question().strip() + b"\n]", r"is one JSON array: .* jq -c '.\[\]'"),
    "JSON array in a line": ("a.jsonl", b"[" + question().strip() + b"]", "is one JSON array"),
    "pretty-printed": (
        "a.jsonl",
        json.dumps({"question": "1+1?"}, indent=2).encode(),
        "is JSON over several lines: .* jq -c",
    ),
    "pretty-printed objects": (
        "a.jsonl",
        2 * json.dumps({"question": "1+1?"}, indent=2).encode(),
        "is JSON over several",
    ),
    "suffix json": ("a.json", b"[" + question() + b"]", r"jq -c '.\[\]' FILE.json > FILE.jsonl"),
    "log of inspect": ("a.eval", b"PK\x03\x04", "inspect log dump FILE.eval"),
    "trailing comma": ("a.jsonl", b'{"question": "1+1?", "answer": "2",}\n', "a.jsonl:1: not JSON"),
    "comma after each line": ("a.jsonl", question().strip() + b",\n" + question(), "a.jsonl:1: not JSON"),
    "NaN in JSON": ("a.jsonl", b'{"question": "1+1?", "answer": NaN}\n', "NaN is not allowed in JSON"),
    "infinite answer": ("a.jsonl", b'{"question": "1+1?", "answer": 1e999}\n', "'answer' is infinite"),
    "key twice": ("a.jsonl", b'{"question": "1+1?", "answer": "2", "answer": "3"}\n', "the key 'answer' is repeated"),
    "keys that differ in case": ("a.jsonl", rows({"Question": "1+1?", "QUESTION": "2+2?"}), "differ only in case"),
    "trailing comma in a line of CSV": (
        "a.csv",
        b"question,answer\n1+1?,2,\n",
        "a.csv:2: 3 fields where the header has 2",
    ),
    "quotes with a backslash": ("a.csv", b'question,answer\n"Say \\"a\\" twice?",a\n', "a.csv:2: not CSV from here on"),
    "semicolons": ("a.csv", b"question;answer\n1+1?;2\n", "is separated by ';': save it with commas"),
    "tabs": ("a.csv", b"question\tanswer\n1+1?\t2\n", r"is separated by '\\t'"),
    "id of two questions": ("a.jsonl", question(id=7) + rows({"question": "2+2?", "id": 7}), "the id '7' also belongs"),
    "ShareGPT of two questions": (
        "a.jsonl",
        rows({"conversations": [HUMAN, GPT, HUMAN, GPT]}),
        "has 2 user turns in 4",
    ),
    "conversation that the assistant begins": ("a.jsonl", rows({"messages": [ASSISTANT, USER]}), "1 user turns in 2"),
    "system turn": ("a.jsonl", rows({"messages": [SYSTEM, USER]}), "set prompt.system to it and remove the turn"),
    "verl with a system turn": ("a.jsonl", rows(VERL | {"prompt": [SYSTEM, USER]}), "has a system turn"),
    "image": ("a.jsonl", rows({"messages": [{"role": "user", "content": [{"type": "image"}]}]}), "other than text"),
    "Alpaca of objects": ("a.jsonl", rows({"instruction": "Add.", "input": {"a": 1}}), "are not both text"),
    "multiple choice of lm-eval": (
        "a.jsonl",
        rows(LM_EVAL | {"doc": DOC | {"choices": ["1", "2"]}, "target": 1}),
        "a multiple choice of lm-eval",
    ),
    "lm-eval without a question": (
        "a.jsonl",
        rows(LM_EVAL | {"doc": {"premise": "1+1"}}),
        "'doc' of lm-eval has no question among premise",
    ),
    "results of lm-eval": ("a.jsonl", rows({"results": {}, "configs": {}, "n-shot": {}}), "run it with --log_samples"),
    "whole log of inspect": (
        "a.jsonl",
        rows({"version": 2, "eval": {}, "plan": {}, "samples": []}),
        r"jq -c '.samples\[\]'",
    ),
    "several targets of inspect": (
        "a.jsonl",
        rows(INSPECT | {"target": ["2", "3"]}),
        "'target' of inspect lists 2 answers",
    ),
    "multiple choice of inspect": ("a.jsonl", rows(INSPECT | {"choices": ["2", "3"]}), "a multiple choice of inspect"),
    "output of an OpenAI batch": (
        "a.jsonl",
        rows({"custom_id": "p", "response": {}, "error": None}),
        "holds no question",
    ),
    "request of an OpenAI batch": (
        "a.jsonl",
        rows({"custom_id": "p", "body": {"messages": [USER]}}),
        "custom_id under problem_id",
    ),
    "rows of no question": ("a.jsonl", rows({"text": "1+1?"}), "set problems.columns.question to one of text"),
}


def load(path: Path, **settings: object) -> list[tuple[str, str | None]]:
    loaded = load_problems(ProblemsConfig(sources=(str(path),), **settings))
    return [(problem.question, problem.answer) for problem in loaded.problems]


@pytest.mark.parametrize(("name", "content", "problems"), READ.values(), ids=READ)
def test_files_are_read(tmp_path, name, content, problems):
    (tmp_path / name).write_bytes(content)
    assert load(tmp_path / name) == problems


@pytest.mark.parametrize(("name", "content", "message"), REFUSED.values(), ids=REFUSED)
def test_files_are_refused_in_a_sentence_with_their_name(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        load(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)


def test_ids_and_sources_of_known_layouts(tmp_path):
    for number, row in enumerate((VERL, INSPECT, LM_EVAL | {"doc": DOC | {"id": 7}})):
        (tmp_path / f"{number}.jsonl").write_bytes(rows(row))
    verl, inspect, lm_eval = (files.load(tmp_path / f"{i}.jsonl", ProblemsConfig()).problems[0] for i in range(3))
    assert verl.source == "gsm8k"
    assert (inspect.problem_id, lm_eval.problem_id) == ("p", "7")


def test_configured_columns_go_before_known_layouts(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(rows({"instruction": "Add.", "input": "1+1?", "output": "2"}))
    assert load(tmp_path / "a.jsonl", columns=ColumnsConfig(question="input")) == [("1+1?", None)]
    assert load(tmp_path / "a.jsonl", columns=ColumnsConfig(answer="output")) == [("Add.\n\n1+1?", "2")]


def test_conversations_that_are_no_question_can_be_skipped(tmp_path, caplog):
    (tmp_path / "a.jsonl").write_bytes(rows({"messages": [USER, ASSISTANT]}, {"messages": [USER, ASSISTANT, USER]}))
    assert load(tmp_path / "a.jsonl", on_malformed="skip") == [("1+1?", None)]
    assert "a.jsonl:2: its conversation has 2 user turns" in caplog.text


def test_parquet_of_known_layouts_and_without_answers(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([VERL]), path)
    assert load(path) == [("1+1?", "2")]
    pq.write_table(pa.table({"Question": ["1+1?", "1+2?"], "Answer": [2.0, float("nan")], "ID": [1, 2]}), path)
    assert load(path) == [("1+1?", "2.0"), ("1+2?", None)]


def test_parquet_that_is_cut_short_or_has_a_name_twice(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"question": ["1+1?"] * 100}), path)
    whole = path.read_bytes()
    for content in (whole[:-9], whole[:40], b"", whole[:4] + b"\xff" * 60 + whole[64:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a.parquet is not a Parquet file .*: write it again"):
            load(path)
    pq.write_table(pa.table([pa.array(["1+1?"]), pa.array(["2+2?"])], names=["question", "question"]), path)
    with pytest.raises(ValueError, match=r"a.parquet names a column twice"):
        load(path)


def test_a_directory_and_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"is a directory: name the file in it, or write hf:"):
        load(tmp_path)
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(ValueError, match=r"a.jsonl is a directory"):
        load(tmp_path / "a.jsonl")
    with pytest.raises(ValueError, match=r"there is no file .*b.jsonl"):
        load(tmp_path / "b.jsonl")


@pytest.mark.parametrize("name", ["gzip", "JSON array", "system turn", "tabs", "suffix json"])
def test_the_command_line_prints_one_line(tmp_path, capsys, name):
    file, content, _ = REFUSED[name]
    (tmp_path / file).write_bytes(content)
    model = tiny.save_model(tmp_path / "model")
    capsys.readouterr()
    args = ["--model", model, "--problems.sources", str(tmp_path / file), "--out", str(tmp_path / "out")]
    assert run(["sample", *args]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
    assert line.startswith("ssdfast: ")
    assert str(tmp_path / file) in line
