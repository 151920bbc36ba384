"""Problem files: columns, ids, answers, and every line that is no problem."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssdfast.config import ColumnsConfig, ProblemsConfig
from ssdfast.problems import files
from ssdfast.problems.problem import Problem, question_id, read_problems, write_problems

SKIP = ProblemsConfig(on_malformed="skip")


def jsonl(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def load(path: Path, **settings) -> list[Problem]:
    return files.load(path, ProblemsConfig(**settings)).problems


def test_the_usual_columns(tmp_path: Path) -> None:
    row = {"problem": "1+1?", "solution": "so \\boxed{2}", "unique_id": 7, "level": 5, "subject": "Algebra", "year": 1}
    assert load(jsonl(tmp_path / "math.jsonl", row)) == [
        Problem("7", "1+1?", "so \\boxed{2}", "Algebra", "5", {"year": 1})
    ]
    row |= {"question": "2+2?", "answer": 4}
    assert load(jsonl(tmp_path / "math.jsonl", row))[0] == Problem(
        "7", "2+2?", "4", "Algebra", "5", {"problem": "1+1?", "solution": "so \\boxed{2}", "year": 1}
    )


def test_what_a_row_does_not_say_is_made_up_of_the_file(tmp_path: Path) -> None:
    (problem,) = load(jsonl(tmp_path / "mine.jsonl", {"question": "1+1?"}))
    assert problem == Problem(question_id("mine", "1+1?"), "1+1?", None, "mine")
    assert len(problem.problem_id) == len("mine/") + 12


def test_columns_by_name(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"q": "1+1?", "gold": "2", "question": "no", "metadata": {"a": 1}, "b": 2})
    columns = ColumnsConfig(question="q", answer="gold")
    assert load(path, columns=columns) == [
        Problem(question_id("a", "1+1?"), "1+1?", "2", "a", None, {"question": "no", "a": 1, "b": 2})
    ]
    with pytest.raises(ValueError, match=r"no column 'key': set problems.columns.answer to one of q, gold, question"):
        load(path, columns=ColumnsConfig(question="q", answer="key"))
    with pytest.raises(ValueError, match=r"a.jsonl has none of the columns question, .*: .* to one of q, gold$"):
        load(jsonl(tmp_path / "a.jsonl", {"q": "1+1?", "gold": "2"}))


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("2 and 2 is 4\n#### 1,234 ", "1,234"),
        ("#### a #### b", "b"),
        (["7"], "7"),
        (["1", "2"], '["1","2"]'),
        (0.5, "0.5"),
        (True, "true"),
        ("", None),
        (None, None),
    ],
)
def test_answers(tmp_path: Path, answer: object, kept: str | None) -> None:
    assert load(jsonl(tmp_path / "a.jsonl", {"question": "?!", "answer": answer}))[0].answer == kept


MALFORMED = {
    b'{"question": "a?"': "not JSON",
    b'["a?"]': "not a JSON object but list",
    b'{"question": NaN}': "NaN is not allowed in JSON",
    b"[" * 100_000: "not JSON",
    b'{"question": 3}': "'question' is not a text but int",
    b'{"question": [{"role": "user"}]}': "'question' is not a text but list",
    b'{"question": " \\n"}': "'question' is empty",
    b'{"question": null}': "no 'question'",
    b'{"answer": "4"}': "no 'question'",
    b"{}": "no 'question'",
    b'{"question": "\xff?"}': r"not UTF-8 \(invalid start byte at byte 15\)",
    b'{"question": "\\ud800?"}': "'question' holds half a surrogate pair",
    b'{"question": "a?", "answer": "\\udfff"}': "'answer' holds half a surrogate pair",
}


@pytest.mark.parametrize(("line", "why"), MALFORMED.items(), ids=range(len(MALFORMED)))
def test_malformed_lines(tmp_path: Path, line: bytes, why: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"question": "first?"}\n\n' + line + b'\n{"question": "last?"}\n')
    with pytest.raises(ValueError, match=rf"a.jsonl:3: .*{why}.*: fix it, or problems.on_malformed=skip"):
        files.load(path, ProblemsConfig())
    read = files.load(path, SKIP)
    assert [problem.question for problem in read.problems] == ["first?", "last?"]
    assert len(read.malformed) == 1
    assert read.malformed[0].startswith(f"{path}:3: ")
    assert read.malformed[0] in caplog.text


def test_byte_order_mark_crlf_blank_lines_and_line_separators_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"question": "a?"}\r\n\r\n  \n{"question": "b\xe2\x80\xa8?"}')
    assert [problem.question for problem in load(path)] == ["a?", "b\u2028?"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"{\n"])
def test_a_file_without_problems(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a.jsonl holds no problem"):
        files.load(path, SKIP)


def test_an_id_is_of_one_question(tmp_path: Path) -> None:
    rows = [{"id": 1, "question": "a?"}, {"id": 2, "question": "b?"}, {"id": 1, "question": "c?"}]
    path = jsonl(tmp_path / "a.jsonl", *rows)
    with pytest.raises(ValueError, match=r"a.jsonl:3: the id '1' also belongs to a question in line 1"):
        load(path)
    assert len(load(jsonl(path, {"id": 1, "question": "a?"}, {"id": 1, "question": "A ?"}))) == 2  # left to duplicates


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbfid,question,answer,\r\n007,"a,\n""b""?",,x\r\n\r\n8,c?,1,y\r\n')
    assert load(path) == [
        Problem("007", 'a,\n"b"?', None, "a", None, {"": "x"}),
        Problem("8", "c?", "1", "a", None, {"": "y"}),
    ]


def test_malformed_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'question,answer\n"two\nlines?",1\nb?\n\xff?,2\n,3\nlast?,4\n')
    with pytest.raises(ValueError, match=r"a.csv:4: 1 fields where the header has 2: fix it"):
        load(path)
    read = files.load(path, SKIP)
    assert [problem.question for problem in read.problems] == ["two\nlines?", "last?"]
    assert [what.removeprefix(f"{path}:") for what in read.malformed] == [
        "4: 1 fields where the header has 2",
        "5: not UTF-8",
        "6: 'question' is empty",
    ]
    path.write_text('question\na?\n"b?\n')
    with pytest.raises(ValueError, match=r"a.csv:3: not CSV from here on"):
        load(path)
    path.write_text("question,question\na?,b?\n")
    with pytest.raises(ValueError, match="names a column twice"):
        load(path)
    path.write_text(f"question\n{'long ' * 100_000}?\n")
    assert len(load(path)[0].question) > 131_072


def test_parquet(tmp_path: Path) -> None:
    table = pa.table(
        {
            "question": ["a?", None, *(f"{i}?" for i in range(5000))],
            "difficulty": [float("nan"), 1.0, *[0.25] * 5000],
            "image": [b"\xff"] * 5002,
            "tags": [["x", "y"]] * 5002,
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a.parquet:2: no 'question'"):
        load(tmp_path / "a.parquet")
    read = files.load(tmp_path / "a.parquet", SKIP)
    assert read.problems[0] == Problem(question_id("a", "a?"), "a?", None, "a", None, {"tags": ["x", "y"]})
    assert read.problems[-1].difficulty == "0.25"
    pq.write_table(pa.table({"question": [f"{i}?" for i in range(5000)] + [" "]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a.parquet:5001: 'question' is empty"):
        load(tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_text("no")
    with pytest.raises(ValueError, match=r"a.parquet is not a Parquet file"):
        load(tmp_path / "a.parquet")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_no_file(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ValueError, match=r"there is no file .*none"):
        load(tmp_path / f"none{suffix}")


def test_the_problems_of_a_run_come_back_exactly_and_are_a_source(tmp_path: Path) -> None:
    problems = [
        Problem("a/1", "Löse x\u2028\r\n\u00a0= 2?\n", "2", "a", "hard", {"entry": {"x": [1, 0.1, None, True]}}),
        Problem("b", "?!"),
    ]
    write_problems(tmp_path / "problems.jsonl", problems)
    assert read_problems(tmp_path / "problems.jsonl") == problems
    again = load(tmp_path / "problems.jsonl")
    assert again[0] == problems[0]
    assert again[1] == Problem("b", "?!", None, "problems")


def test_problems_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    write_problems(path, [Problem("a", "a?")])
    for metadata in ({"x": float("nan")}, {"x": {1, 2}}):
        with pytest.raises(ValueError, match="the problem c cannot be written"):
            write_problems(path, [Problem("b", "b?"), Problem("c", "c?", metadata=metadata)])
    assert read_problems(path) == [Problem("a", "a?")]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_no_run_wrote(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file"):
        read_problems(tmp_path / "problems.jsonl")
    for line in ('{"problem_id": "b"}', '{"problem_id": "b", "question": "b?", "more": 1}', "{", "3"):
        (tmp_path / "problems.jsonl").write_text(f'{{"problem_id": "a", "question": "a?"}}\n{line}\n')
        with pytest.raises(ValueError, match=r"problems.jsonl:2: not a problem that ssdfast wrote"):
            read_problems(tmp_path / "problems.jsonl")
