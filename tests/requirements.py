"""The package's requirements, and whether pip resolves them: ``python -m tests.requirements EXTRA ...`` prints them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(*extras: str) -> list[str]:
    """Of the package with these extras, without the package itself."""
    flat = list(PROJECT["dependencies"])
    for extra in extras:
        for requirement in PROJECT["optional-dependencies"][extra]:
            inner = re.fullmatch(r"ssdfast\[(.*)\]", requirement)
            flat += requirements(*inner[1].split(",")) if inner else [requirement]
    return list(dict.fromkeys(flat))


def resolve(python: str, wanted: list[str], constraints: Path, report: Path) -> dict[str, str]:
    """The versions that pip would install into an empty environment. Raises CalledProcessError where it finds none."""
    command = [python, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", str(report)]
    subprocess.run([*command, "-c", str(constraints), *wanted], check=True, capture_output=True, text=True)
    installs = json.loads(report.read_text())["install"]
    return {entry["metadata"]["name"].lower().replace("_", "-"): entry["metadata"]["version"] for entry in installs}


if __name__ == "__main__":
    print("\n".join(requirements(*sys.argv[1:])))
