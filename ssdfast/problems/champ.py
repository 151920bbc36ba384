"""CHAMP: 270 competition problems with worked solutions (Mao, Kim and Zhou 2024), from the package champ-dataset."""

from __future__ import annotations

from .problem import Problem


def load() -> list[Problem]:
    """All problems; metadata holds the category and the number of steps of the worked solution.

    CHAMP has no difficulties. Raises ValueError where the package is not installed.
    """
    try:
        from champ_dataset import load as load_version
    except ImportError:
        raise ValueError("champ comes from a package that is not installed: pip install champ-dataset") from None
    return [
        Problem(
            problem_id=f"champ/{entry.identifier.removeprefix('P_')}",
            question=entry.text,
            answer=entry.answer,
            source="champ",
            metadata={"category": entry.category, "steps": len(entry.solution.steps)},
        )
        for entry in load_version("v0").problems.values()
    ]
