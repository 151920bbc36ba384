"""Problems from a Hugging Face dataset, on the Hub or in a local directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..config import ProblemsConfig
from ..run_dir import RunError
from .rows import Read, Row, problems_of

SCHEME = "hf:"


def load(source: str, config: ProblemsConfig) -> Read:
    """The problems of ``hf:ORG/NAME[/SUBSET][@SPLIT]`` or ``hf:DIRECTORY[@SPLIT]``.

    A directory is one written by save_to_disk, or one of data files; it begins with a dot, a slash or ~, or exists. The
    split may be left out where there is one alone. Raises ValueError for what cannot be loaded, RunError where the Hub
    cannot be reached. No code of a dataset's is ever run.
    """
    try:
        import datasets
    except ImportError:
        raise ValueError(f"{source} needs a package that is not installed: pip install datasets") from None
    name, _, split = source.removeprefix(SCHEME).partition("@")
    directory = Path(name).expanduser()
    local = name.startswith((".", "/", "~")) or directory.is_dir()
    subset = None
    if local:
        name = directory.resolve().name
    elif name.count("/") == 2:
        name, _, subset = name.rpartition("/")
    try:
        if local and ((directory / "dataset_dict.json").exists() or (directory / "dataset_info.json").exists()):
            found = datasets.load_from_disk(str(directory))
        else:
            found = datasets.load_dataset(str(directory) if local else name, subset, split=split or None)
    except ConnectionError as error:
        remedy = f"go online, or bring a copy made by save_to_disk and name it, {SCHEME}DIRECTORY"
        raise RunError(f"{source}: {_sentence(error)}: {remedy}") from None
    except Exception as error:  # of some twenty types, each with a sentence of its own
        remedy = f"write {SCHEME}DATASET[/SUBSET]@SPLIT"
        raise ValueError(f"{source} cannot be loaded ({_sentence(error)}): {remedy}") from None
    return problems_of(_rows(_one_split(found, split, source)), source, name, config)


def _one_split(found: Any, split: str, source: str) -> Any:
    """The rows of one split, whether `found` is these or a mapping of splits."""
    if not isinstance(found, dict):
        own = str(found.split or "")
        if split and own and split != own:
            raise ValueError(f"{source} holds the split {own} alone: write @{own}, or leave it out")
        return found
    if split in found or (not split and len(found) == 1):
        return found[split or next(iter(found))]
    raise ValueError(f"{source} has the splits {', '.join(found)}: name one of them after @")


def _rows(found: Any) -> Iterator[Row]:
    yield from enumerate(found, 1)


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
