"""Models of the Hugging Face Hub that are in the local cache. Nothing is downloaded.

``ORG/NAME`` or ``ORG/NAME@REVISION`` stands for the snapshot that ``hf download ORG/NAME`` left in the cache; its
directory is named by the commit, which a run's manifest records.
"""

from __future__ import annotations

import re
from pathlib import Path

_ID = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_SNAPSHOT = re.compile(r"models--([^/]+)/snapshots/([0-9a-f]{40})")


def local_path(name: str) -> Path:
    """The directory or file of a model: `name` itself where it exists, or the snapshot of a Hub id in the cache.

    Raises ValueError for a Hub id that is not in the cache. Any other name is returned as a path, existing or not.
    """
    path = Path(name)
    match = _ID.fullmatch(name)
    if path.exists() or not match or path.parent.exists() or name.startswith("."):
        return path
    import huggingface_hub

    repository, revision = match.groups()
    try:
        return Path(huggingface_hub.snapshot_download(repository, revision=revision, local_files_only=True))
    except (huggingface_hub.errors.LocalEntryNotFoundError, ValueError):
        at = f" --revision {revision}" if revision else ""
        raise ValueError(
            f"there is no model at {name}, and the local Hugging Face cache has no {repository}"
            f"{f' at {revision}' if revision else ''}: name a directory of safetensors or a .gguf file, or run hf"
            f" download {repository}{at} first"
        ) from None


def revision_of(path: Path) -> tuple[str, str] | None:
    """(Hub id, commit) of a file in the cache, None for any other."""
    match = _SNAPSHOT.search(path.absolute().as_posix())
    return (match[1].replace("--", "/"), match[2]) if match else None
