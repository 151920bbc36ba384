"""Rejects words that the project does not use, and a README that is too long: ``python -m tests.prose``.

Each rule names the better word. Rules for names apply to code alone.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent
FOLDERS = ("ssdfast", "kernels", "csrc", "bench", "docs")
CODE = {".py", ".h", ".cpp", ".js", ".sh"}
TEXT = {".md", ".html", ".yml", ".yaml"}
README_WORDS = 700

RULES = {
    r"\btold\b": "name what it does: format_*, log, report",
    r"\basked\b": "requested, or the noun: the evaluation problems",
    r"\blearnt\b": "learned, or trained on",
    r"\bLabelled\b": "NamedPath",
    r"\boverlong\b": "truncated (stopped by max tokens), or too long (does not fit the context)",
    r"\bcarriers\b": "the traces that are scored: max_traces",
    r"\bresidency\b": "model_loading",
    r"\b(nats|tokens|bytes) an? ": "per: nats per position, tokens per second",
    r"\bhitherto\b": "until now",
    r"\bmend(s|ed|ing)?\b": "repair, or fix",
    r"\bgo(es|ing)? in circles\b": "loop",
    r"\bgone in circles\b": "looped",
    r"\b(hot-no-truncation)\b": "temperature-only",
    r"\bssd-expected\b": "ssd-soft",
    r"\bleast (seen|difference)\b": "minimum detectable effect, or difference",
    r"\bmovement\b": "shift",
}
CODE_RULES = {
    r"\bfound(: [^=]+)? = ": "name the result by what it is",
    r"\bfor one in\b": "name the loop variable by its kind",
}


def faults(path: Path, text: str) -> list[str]:
    """``file:line: word → better word``, for every rule that a line of the text breaks."""
    rules = RULES | (CODE_RULES if path.suffix in CODE else {})
    return [
        f"{path}:{number}: {match[0].strip()!r} → {better}"
        for number, line in enumerate(text.splitlines(), 1)
        for pattern, better in rules.items()
        if (match := re.search(pattern, line))
    ]


def too_long(readme: str) -> list[str]:
    words = len(readme.split())
    return [f"README.md: {words} words → at most {README_WORDS}"] if words > README_WORDS else []


def files() -> list[Path]:
    """The files that are checked. ssdfast/kernels is a link to kernels, which is checked once."""
    inside = [path for folder in FOLDERS for path in sorted((CHECKOUT / folder).rglob("*"))]
    linked = CHECKOUT / "ssdfast" / "kernels"
    texts = [path for path in inside if path.suffix in CODE | TEXT and linked not in path.parents]
    return [*texts, CHECKOUT / "README.md"]


def main() -> int:
    lines = too_long((CHECKOUT / "README.md").read_text(encoding="utf-8"))
    for path in files():
        lines += faults(path.relative_to(CHECKOUT), path.read_text(encoding="utf-8"))
    print("\n".join(lines), file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
