"""CHAMP: 270 competition problems with worked solutions (Mao, Kim and Zhou 2024), from the package champ-dataset."""

from __future__ import annotations

from .problem import Problem


def load() -> list[Problem]:
    """All of them; metadata holds the category and the number of steps of the worked solution.

    CHAMP grades no difficulty. Raises ValueError where the package is not installed.
    """
    try:
        from champ_dataset import load as load_version
    except ImportError:
        raise ValueError("champ comes from a package that is not installed: pip install champ-dataset") from None
    return [
        Problem(
            problem_id=f"champ/{found.identifier.removeprefix('P_')}",
            question=found.text,
            answer=found.answer,
            source="champ",
            metadata={"category": found.category, "steps": len(found.solution.steps)},
        )
        for found in load_version("v0").problems.values()
    ]
