"""The files of a model, checked before any of them is loaded: each message names the file and the remedy.

transformers fills weights that it does not find with random numbers and warns, and its readers raise whatever exception
they come to.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors

from .messages import one_line

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_JSON = (
    "config.json",
    "generation_config.json",
    INDEX,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
)
_OTHER = ("merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "chat_template.jinja")
_LFS = b"version https://git-lfs"
REASON_LENGTH = 240
"""Characters of another library's message that a sentence quotes."""


def locate(path: Path) -> tuple[Path, str | None]:
    """(directory, GGUF file name or None). Raises ValueError where there is no model."""
    if path.is_file() and path.suffix == ".gguf":
        return path.parent, path.name
    if not path.is_dir():
        raise ValueError(f"there is no model at {path}: name a directory of safetensors or a .gguf file")
    if not (path / "config.json").is_file():
        inside = sorted(p.name for p in path.glob("*.gguf"))
        remedy = f"name the file, {path / inside[0]}" if inside else "name a directory that save_pretrained wrote"
        raise ValueError(f"{path} has no config.json: {remedy}")
    return path, None


def check(directory: Path, gguf: str | None) -> None:
    """Raises ValueError for a file that is a git-LFS pointer, empty, truncated or not of its format."""
    if gguf:
        return _check_gguf(directory / gguf)
    check_config(directory)
    for file in (directory / name for name in _JSON):
        if file.is_file():
            _read_json(file)
    for file in (directory / name for name in _OTHER):
        if file.is_file() and file.stat().st_size:
            _check_pointer(file)
    for file in weight_files(directory):
        _check_safetensors(file)


def check_config(directory: Path) -> None:
    """Raises ValueError unless config.json is that of a transformers model."""
    file = directory / "config.json"
    if not isinstance(_read_json(file).get("model_type"), str):
        raise ValueError(f"{file} has no model_type, which names the architecture: restore the file, or add model_type")


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files that transformers loads, none where the directory has no weights.

    Raises ValueError for an index that names a file that is not there.
    """
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    index = directory / INDEX
    if not index.is_file():
        return []
    names = _read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f"{index} has no weight_map from weights to files: restore the file")
    files = [directory / name for name in sorted(set(names.values()))]
    for file in files:
        if not file.is_file():
            raise ValueError(f"{index} names {file.name}, which is not in {directory}: copy or download that file")
    return files


def parameters(directory: Path) -> int:
    """The number of parameters by the headers of the safetensors files."""
    count = 0
    for file in weight_files(directory):
        with safetensors.safe_open(file, "numpy") as tensors:
            count += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return count


def check_loading(path: str, architecture: str, info: Mapping[str, Any]) -> None:
    """Raises ValueError unless every weight of the architecture came from the files, and every weight of the files is
    one of the architecture.

    info: transformers' loading info, without tied weights and those that transformers itself ignores.
    """
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    file = _weights_name(Path(path))
    if mismatched := sorted(info["mismatched_keys"]):
        name, stored, expected = mismatched[0]
        raise ValueError(
            f"{file}: {name} has the shape {list(stored)}, and {list(expected)} by the configuration"
            f"{_others(mismatched, ' differ too')}: restore the config.json or the weights, which are not of one model"
        )
    if prefix := _prefix(unexpected, missing):
        raise ValueError(
            f"{file}: the names of {len(unexpected):,} weights begin with {prefix!r}, as {unexpected[0]}, which no"
            f" {architecture} has: save the model again without the wrapper that adds it, or rename the weights"
        )
    if missing:
        raise ValueError(
            f"{file} lacks the weight {missing[0]} of a {architecture}{_others(missing, ' are missing too')}: save or"
            " copy the whole model again, for missing weights would be random numbers"
        )
    if unexpected:
        raise ValueError(
            f"{file} holds the weight {unexpected[0]}, which no {architecture} of this config.json has"
            f"{_others(unexpected, ' are unknown too')}: restore the config.json or remove those weights"
        )


def _weights_name(path: Path) -> Path:
    names = (WEIGHTS, INDEX) if path.is_dir() else ()
    return next((path / name for name in names if (path / name).is_file()), path)


def _others(keys: list[Any], predicate: str) -> str:
    return f" ({len(keys) - 1:,} others{predicate})" if len(keys) > 1 else ""


def _prefix(unexpected: list[str], missing: list[str]) -> str:
    """What all unexpected names begin with and the missing ones lack, "" for nothing."""
    if not unexpected or not missing:
        return ""
    prefix = next((unexpected[0][: -len(name)] for name in missing if unexpected[0].endswith(f".{name}")), "")
    return prefix if prefix and all(name.startswith(prefix) for name in unexpected) else ""


def _check_pointer(file: Path) -> None:
    """Raises ValueError for a git-LFS pointer and an empty file."""
    with file.open("rb") as opened:
        start = opened.read(len(_LFS))
    if start == _LFS:
        raise ValueError(f"{file} is a git-LFS pointer and not the file itself: run git lfs pull, or download the file")
    if not start:
        raise ValueError(f"{file} is empty: copy or download it again")


def _read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    _check_pointer(file)
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON ({one_line(error, REASON_LENGTH)}): copy or download it again") from None
    if not isinstance(value, dict):
        raise ValueError(f"{file} holds a JSON {type(value).__name__} and not an object: restore the file")
    return value


def _check_safetensors(file: Path) -> None:
    _check_pointer(file)
    try:
        with safetensors.safe_open(file, "numpy") as tensors:
            names = list(tensors.keys())
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(
            f"{file} is no complete safetensors file ({one_line(error, REASON_LENGTH)}): copy or download it again"
        ) from None
    if not names:
        raise ValueError(f"{file} holds no weights: copy or download it again")


def _check_gguf(file: Path) -> None:
    _check_pointer(file)
    with file.open("rb") as opened:
        start = opened.read(4)
    if start != b"GGUF":
        raise ValueError(f"{file} is no GGUF file (it begins with {start!r}): copy or download it again")
