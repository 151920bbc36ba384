"""Packages that a stage needs beyond a default install, checked before any work."""

from __future__ import annotations

from importlib.util import find_spec

_PACKAGES = {
    "eval": {"math_verify": "math-verify", "matplotlib": "matplotlib", "scipy": "scipy"},
    "train": {"accelerate": "accelerate"},
    "view": {"duckdb": "duckdb", "starlette": "starlette", "uvicorn": "uvicorn"},
}


def require(*extras: str) -> None:
    """Raises ValueError that names the missing packages of these extras and the command that installs them."""
    packages = {module: name for extra in extras for module, name in _PACKAGES[extra].items()}
    if missing := [name for module, name in packages.items() if find_spec(module) is None]:
        raise ValueError(
            f"this needs packages that are not installed ({', '.join(missing)}): pip install"
            f" 'ssdfast[{','.join(extras)}]', or pip install {' '.join(missing)}"
        )
