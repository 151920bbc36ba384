"""Run directories: a file appears whole or not at all; a run continues only with the same settings and inputs."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from .config import Settings, dump

MANIFEST = "manifest.json"
CONFIG = "config.yaml"
PARQUET_KEY = b"ssdfast"
"""The key of a Parquet table's metadata under which a JSON object stands."""
SCHEMA_VERSION = 1
"""The version of the names in every JSON file and every Parquet table that a stage writes."""
_UNFINISHED = ".ssdfast.tmp"
"""The suffix of a file or directory that is not complete, after a dot and its name."""
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RunError(RuntimeError):
    """A run failed through no mistake of the caller's; the message is complete without a traceback."""


class InUse(ValueError):
    """Another process works in this directory."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path to write to; on success it becomes `path`, durably, on failure it is removed.

    Raises OSError with the remedy where the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_UNFINISHED, dir=path.parent)
    os.close(handle)
    temporary = Path(name).absolute()  # Arrow reads a relative path with a colon as a URL
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp made it private
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OSError(
            error.errno,
            f"no room to write {path}: free some space and start the same command again; finished work is kept",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """A temporary directory to fill; on success it becomes `path`, which must not exist yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=_UNFINISHED, dir=path.parent))
    try:
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        for file in temporary.rglob("*"):
            os.chmod(file, (0o777 if file.is_dir() else 0o666) & ~_umask())  # safetensors writes private files
            _sync(file)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def link(path: Path, target: Path) -> None:
    """Make `path` a relative link to `target`, in the place of a link that is there. Raises ValueError for a file or a
    directory there."""
    if path.exists() and not path.is_symlink():
        raise ValueError(f"{path} is in the way of a link to {target}: rename it")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}{_UNFINISHED}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(target.resolve(), path.parent.resolve()))
    os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def schema_stamp() -> dict[str, Any]:
    """The entries that every JSON file starts with and every Parquet table has in its metadata."""
    return {"schema_version": SCHEMA_VERSION, "ssdfast_version": version_of("ssdfast")}


def parquet_metadata(**values: Any) -> dict[bytes, bytes]:
    """The schema metadata of a Parquet table: the versions and `values`, as one JSON object."""
    return {PARQUET_KEY: json.dumps({**schema_stamp(), **values}, ensure_ascii=False).encode()}


def version_of(package: str) -> str | None:
    """The installed version of a package, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write strict JSON behind the schema version and the package's version. Raises ValueError for a NaN."""
    stamped = {**schema_stamp(), **value}
    write_text(path, json.dumps(stamped, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote. Raises ValueError for a file that is broken, or of another schema version."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}): run the stage again in a new directory, or with --overwrite"
        ) from None
    check_schema(values if isinstance(values, dict) else {}, path)
    return values


def check_schema(values: Mapping[str, Any], path: Path | str) -> None:
    """Raises ValueError in one sentence unless `values`, read from `path`, are of this schema version."""
    version = values.get("schema_version")
    if version != SCHEMA_VERSION:
        written = "before schema versions" if version is None else f"in schema version {version!r}"
        raise ValueError(
            f"{path} was written {written}; this ssdfast reads schema version {SCHEMA_VERSION}: run the stage again in"
            " a new directory, or with --overwrite"
        )


@contextmanager
def lock(directory: Path, enabled: bool = True) -> Iterator[None]:
    """Keep other runs out of `directory` until done, or until this process dies in whatever way.

    Raises ValueError where another process holds it. Does nothing unless `enabled`.
    """
    if not enabled:
        yield
        return
    if _SCHEME.fullmatch(directory.parts[0] if directory.parts else "") and not Path(directory.parts[0]).exists():
        raise ValueError(f"{directory} is a URL, and runs are written to local directories: name a directory")
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory} is a file: name a directory to write to")
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("a+") as lock_file:
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock_file.seek(0)
            holder = lock_file.read().strip() or "unknown"
            raise InUse(f"{directory} is in use by process {holder}: wait for it, or choose another --out") from None
        lock_file.truncate(0)
        lock_file.write(f"{os.getpid()} on {platform.node()}\n")
        lock_file.flush()
        yield


def sweep(directory: Path) -> None:
    """Remove unfinished files that a killed run left in `directory`: those with the names of `atomic`."""
    for entry in list(directory.iterdir()) if directory.is_dir() else ():
        if entry.name.startswith(".") and entry.name.endswith(_UNFINISHED):
            remove(entry)


def claim(
    directory: Path,
    config: Settings,
    results: Sequence[str],
    overwrite: bool,
    changeable: Sequence[str] = (),
    growing: Sequence[str] = (),
) -> None:
    """Make `directory` the home of a run with these settings, new or continued. A stage does all its checks first, so
    that a command that is rejected neither claims the directory nor removes what is in it.

    results: the names that the run makes in it. `overwrite` removes them first, and nothing else. Where there are none,
    new settings lose nothing and are accepted.
    changeable: the settings that no kept result depends on. growing: numbers that may be larger than before, where the
    run then makes what is missing.
    Raises ValueError as `check_claim`.
    """
    check_claim(directory, config, results, overwrite, changeable, growing)
    if overwrite:
        for name in results:
            remove(directory / name)
    if not any((directory / name).exists() for name in results):
        remove(directory / MANIFEST)
    saved, text = directory / CONFIG, dump(config)
    if not saved.exists() or saved.read_text(encoding="utf-8") != text:
        write_text(saved, text)
    sweep(directory)


def check_claim(
    directory: Path,
    config: Settings,
    results: Sequence[str],
    overwrite: bool,
    changeable: Sequence[str] = (),
    growing: Sequence[str] = (),
) -> None:
    """Raises ValueError where `directory` holds results of other settings, or of no known settings at all. Changes
    nothing."""
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory} is a file: name a directory to write to")
    if overwrite:
        return
    saved = directory / CONFIG
    present = [name for name in results if (directory / name).exists()]
    if present:
        if (directory / MANIFEST).exists():
            read_json(directory / MANIFEST)
        if not saved.exists():
            raise ValueError(f"{directory} holds {present[0]} but no {CONFIG}: choose another --out, or --overwrite")
        before, now = (
            {name: value for name, value in yaml.safe_load(text).items() if name not in changeable}
            for text in (saved.read_text(encoding="utf-8"), dump(config))
        )
        before |= {name: now[name] for name in growing if now[name] > before.get(name, now[name])}
        if difference := _first_difference(before, now):
            raise ValueError(
                f"{directory} holds a run with other settings ({difference}): choose another --out, or --overwrite it"
            )


def changed_settings(directory: Path, config: Settings) -> list[str]:
    """The settings of the run in `directory` whose values differ from those of `config`."""
    before, now = (yaml.safe_load(text) for text in ((directory / CONFIG).read_text(encoding="utf-8"), dump(config)))
    return [name for name in now if now[name] != before.get(name)]


def remove(path: Path) -> None:
    """Remove a file or a directory with all that is in it; nothing where there is none."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _first_difference(before: Any, now: Any, key: str = "") -> str | None:
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*now, *(name for name in before if name not in now)]:
            if difference := _first_difference(before.get(name), now.get(name), f"{key}.{name}" if key else name):
                return difference
        return None
    return None if before == now else f"{key}: {before!r} there, {now!r} here"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
