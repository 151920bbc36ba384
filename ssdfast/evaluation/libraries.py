"""Packages that only evaluation needs (the extra ``[eval]``)."""

from __future__ import annotations

import importlib.util

_PACKAGES = {
    "math_verify": "math-verify",
    "matplotlib": "matplotlib",
    "scipy": "scipy",
}


def check_installed() -> None:
    """Raises ValueError that names the missing packages, before hours of sampling and not after."""
    missing = [name for module, name in _PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ValueError(f"evaluation needs packages that are not installed: pip install {' '.join(missing)}")
