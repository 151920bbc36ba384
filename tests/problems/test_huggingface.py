"""Datasets: local ones of both kinds, and the Hub out of reach."""

import json
from pathlib import Path

import pytest

from ssdfast.config import ProblemsConfig
from ssdfast.problems import huggingface
from ssdfast.problems.problem import Problem
from ssdfast.run_dir import RunError

datasets = pytest.importorskip("datasets")
CONFIG = ProblemsConfig()
ROWS = [
    {"problem": "a?", "answer": "1", "level": 2, "id": "x"},
    {"problem": "b?", "answer": "2", "level": 3, "id": "y"},
]
FIRST = Problem("x", "a?", "1", "saved", "2")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def test_splits_saved_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict(train=split, test=split.select([1])).save_to_disk(tmp_path / "saved")
    assert huggingface.load(f"hf:{tmp_path}/saved@train", CONFIG).problems[0] == FIRST
    monkeypatch.chdir(tmp_path)
    for source in ("hf:./saved@test", "hf:saved@test"):
        assert [problem.question for problem in huggingface.load(source, CONFIG).problems] == ["b?"]
    for source in ("hf:./saved", "hf:./saved@dev"):
        with pytest.raises(ValueError, match=r"has the splits train, test: name one of them after @"):
            huggingface.load(source, CONFIG)


def test_one_split_saved_to_disk(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS, split="train").save_to_disk(tmp_path / "saved")
    for source in (f"hf:{tmp_path}/saved", f"hf:{tmp_path}/saved@train"):
        assert huggingface.load(source, CONFIG).problems[0] == FIRST
    with pytest.raises(ValueError, match="has only the split train"):
        huggingface.load(f"hf:{tmp_path}/saved@test", CONFIG)


def test_a_directory_of_data_files(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    for split, rows in (("train", ROWS), ("test", ROWS[1:])):
        (tmp_path / "saved" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert huggingface.load(f"hf:{tmp_path}/saved@train", CONFIG).problems[0] == FIRST
    assert len(huggingface.load(f"hf:{tmp_path}/saved@train[:1]", CONFIG).problems) == 1
    with pytest.raises(ValueError, match=r"saved@dev cannot be loaded \(Unknown split"):
        huggingface.load(f"hf:{tmp_path}/saved@dev", CONFIG)


def test_columns_and_malformed_rows_are_those_of_files(tmp_path: Path) -> None:
    datasets.Dataset.from_list([{"question": "a?"}, {"question": " "}]).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"saved:2: 'question' is empty: fix it"):
        huggingface.load(f"hf:{tmp_path}/saved", CONFIG)
    datasets.Dataset.from_list([{"q": "a?"}]).save_to_disk(tmp_path / "other")
    with pytest.raises(ValueError, match=r"other has none of the columns question, .* to one of q$"):
        huggingface.load(f"hf:{tmp_path}/other", CONFIG)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none@train cannot be loaded \(Couldn't find"):
        huggingface.load(f"hf:{tmp_path}/none@train", CONFIG)


def test_the_hub_out_of_reach() -> None:
    with pytest.raises(
        RunError, match=r"^hf:org/name/subset@train: Couldn't reach 'org/name' on the Hub .*: go online"
    ):
        huggingface.load("hf:org/name/subset@train", CONFIG)


def test_names_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(*args: object, **settings: object) -> object:
        asked.append((args, settings))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for source in ("hf:org/name/subset@train", "hf:org/name@test[:5]", "hf:name"):
        huggingface.load(source, CONFIG)
    assert asked == [
        (("org/name", "subset"), {"split": "train"}),
        (("org/name", None), {"split": "test[:5]"}),
        (("name", None), {"split": None}),
    ]
