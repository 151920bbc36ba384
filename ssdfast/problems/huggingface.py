"""Problems from a Hugging Face dataset, on the Hub or in a local directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..config import ProblemsConfig
from ..messages import one_line
from ..run_dir import RunError
from .rows import Read, Row, parse_rows

SCHEME = "hf:"


def load(source: str, config: ProblemsConfig) -> Read:
    """The problems of ``hf:ORG/NAME[/SUBSET][@SPLIT]`` or ``hf:DIRECTORY[@SPLIT]``.

    A directory was written by save_to_disk or holds data files; its name begins with a dot, a slash or ~, or it exists.
    The split can be omitted where there is only one. Raises ValueError for a dataset that cannot be loaded, RunError
    where the Hub cannot be reached. No code of a dataset runs.
    """
    try:
        import datasets
    except ImportError:
        raise ValueError(f"{source} needs a package that is not installed: pip install datasets") from None
    name, _, split = source.removeprefix(SCHEME).partition("@")
    directory = Path(name).expanduser()
    local = name.startswith((".", "/", "~")) or directory.is_dir()
    if local and any(sign in str(directory.absolute()) for sign in ("*", "?", "[", "::")):
        raise ValueError(f"{source}: datasets reads *, ?, [ and :: in a path as a pattern: rename the directory")
    subset = None
    if local:
        name = directory.resolve().name
    elif name.count("/") == 2:
        name, _, subset = name.rpartition("/")
    try:
        if local and ((directory / "dataset_dict.json").exists() or (directory / "dataset_info.json").exists()):
            dataset = datasets.load_from_disk(str(directory))
        else:
            dataset = datasets.load_dataset(str(directory.absolute()) if local else name, subset, split=split or None)
    except ConnectionError as error:
        remedy = f"go online, or bring a copy made by save_to_disk and name it, {SCHEME}DIRECTORY"
        raise RunError(f"{source}: {_sentence(error)}: {remedy}") from None
    except Exception as error:  # datasets raises some twenty types
        remedy = f"write {SCHEME}DATASET[/SUBSET]@SPLIT"
        raise ValueError(f"{source} cannot be loaded ({_sentence(error)}): {remedy}") from None
    return parse_rows(_rows(_select_split(dataset, split, source)), source, name, config)


def _select_split(dataset: Any, split: str, source: str) -> Any:
    """The rows of one split, where `dataset` is one split or a mapping of splits."""
    if not isinstance(dataset, dict):
        own = str(dataset.split or "")
        if split and own and split != own:
            raise ValueError(f"{source} has only the split {own}: write @{own}, or omit it")
        return dataset
    if split in dataset or (not split and len(dataset) == 1):
        return dataset[split or next(iter(dataset))]
    raise ValueError(f"{source} has the splits {', '.join(dataset)}: name one of them after @")


def _rows(dataset: Any) -> Iterator[Row]:
    yield from enumerate(dataset, 1)


def _sentence(error: Exception) -> str:
    return one_line(error).rstrip(".")
