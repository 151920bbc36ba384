"""A problem, whatever it comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Problem:
    """What is asked, and what is needed to judge an answer."""

    problem_id: str
    """the same for the same problem, whatever is chosen beside it"""
    question: str
    answer: str | None = None
    """the right one, as its source words it"""
    source: str = ""
    difficulty: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    """what the source's own scorer needs besides; JSON"""
