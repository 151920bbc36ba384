"""What made a run, written beside its results: a continued run must have the same inputs."""

from __future__ import annotations

import hashlib
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from .hub import revision_of
from .run_dir import MANIFEST, version_of
from .schemas import Manifest

_PACKAGES = ("ssdfast", "torch", "transformers", "pyarrow", "numpy")
_HASH_BLOCK = 1 << 20


def write_manifest(directory: Path, device: str, seed: int, inputs: Iterable[Path]) -> None:
    """Record the inputs of the run; a continued run must have the same.

    inputs: files, or directories whose files count (one level); each is named with its sha256.
    Raises ValueError where an input is not what the manifest already there says.
    """
    hashes = {str(file): sha256(file) for root in inputs for file in _files(root)}
    if before := read_manifest(directory):
        for name in sorted(before.inputs.keys() | hashes.keys()):
            if before.inputs.get(name) != hashes.get(name):
                what = "is new" if name not in before.inputs else "is gone" if name not in hashes else "has changed"
                raise ValueError(f"{name} {what} since {directory} was started: choose another --out, or --overwrite")
        return
    Manifest(
        versions={"python": platform.python_version(), **{name: version_of(name) for name in _PACKAGES}},
        device=device,
        machine=platform.platform(),
        git_commit=_git_commit(),
        seed=seed,
        command=shlex.join(sys.argv),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        hub_revisions=dict(filter(None, map(revision_of, map(Path, hashes)))),
        inputs=hashes,
    ).write(directory / MANIFEST)


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of the run in `directory`, None where there is none. Raises ValueError for a broken one."""
    path = directory / MANIFEST
    return Manifest.read(path) if path.exists() else None


def input_hashes(directory: Path, root: Path) -> dict[str, str]:
    """The sha256 of each file of an input of the run in `directory`, by its name; `root` as `write_manifest` got it."""
    inputs = Manifest.read(directory / MANIFEST).inputs
    return {file.name: inputs[str(file)] for file in _files(root)}


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _files(root: Path) -> list[Path]:
    return sorted(f for f in root.iterdir() if f.is_file() and f.name[0] != ".") if root.is_dir() else [root]


def _git_commit() -> str | None:
    """The commit of the source tree that runs, None for an installed package."""
    source = Path(__file__).resolve().parent.parent
    if not (source / ".git").exists():
        return None
    try:
        result = subprocess.run(["git", "rev-parse", "HEAD"], cwd=source, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
